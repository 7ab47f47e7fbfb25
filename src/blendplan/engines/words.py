"""Errors of users who start an engine, in the same words for all of them."""

import inspect
from collections.abc import Iterable

from blendplan.errors import BlendplanError
from blendplan.names import did_you_mean


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
