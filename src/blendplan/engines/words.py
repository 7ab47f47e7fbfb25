"""What requests and users ask of an engine, for engines that have their own words for it."""

import inspect
from collections.abc import Iterable

from blendplan.engines.protocol import EngineRequest
from blendplan.errors import BlendplanError
from blendplan.names import did_you_mean


def generation_cap(request: EngineRequest) -> int | None:
    """Most tokens that the request may generate; None where only the context limits it.

    A known output length is a cap too, and where it is given the request does not end before it:
    see `ends_only_at_cap`.
    """
    names = ("max_completion_tokens", "max_tokens")
    caps = [int(request.parameters[name]) for name in names if name in request.parameters]
    if request.output_tokens > 0:
        caps.append(request.output_tokens)
    return min(caps) if caps else None


def ends_only_at_cap(request: EngineRequest) -> bool:
    """Whether an end-of-sequence token does not end the request."""
    stated = request.parameters.get("ignore_eos")
    return request.output_tokens > 0 if stated is None else bool(stated)


def not_importable(engine: str, package: str, error: ImportError) -> BlendplanError:
    """The error for an engine whose Python package is missing or broken."""
    if error.name == package:
        return BlendplanError(
            f"{engine} is not installed in this environment; python -m pip install "
            f"'blendplan[{package}]' adds it"
        )
    return BlendplanError(
        f"{engine} is installed but cannot be imported ({error}); python -c 'import {package}' "
        f"tells more"
    )


class UnsupportedParameterError(Exception):
    """An engine cannot do what a request asks for; the message names the parameter."""


def unsupported(engine: str, names: list[str]) -> UnsupportedParameterError:
    """The error for parameters that an adapter does not know."""
    listed = ", ".join(repr(name) for name in sorted(names))
    return UnsupportedParameterError(f"{engine} does not take {listed}; leave it out")


def check_argument_names(engine: str, given: Iterable[str], known: type[object]) -> None:
    """Refuse engine arguments that the class ``known`` of an engine does not take.

    Raises:
        BlendplanError: with the name and the nearest one that exists.
    """
    names = list(inspect.signature(known).parameters)
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names) or f"see {known.__module__}"
            raise BlendplanError(f"{engine} has no engine argument {name!r}; {hint}")
