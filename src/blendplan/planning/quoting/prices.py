"""`Prices`: what an hour of a GPU costs, from a file of the user's; none is built in."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blendplan.checks.arguments import number, text
from blendplan.checks.json_files import read_text
from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import entry_named
from blendplan.hardware.lookup import gpu_names
from blendplan.names import unknown
from blendplan.printable import printable

_CURRENCY = "currency"
_MOST = 1e9


@dataclass(frozen=True)
class Prices:
    """Prices of GPUs.

    Attributes:
        per_gpu_hour: by the GPU's own name.
        currency: what they are in, as it is to be shown; may be empty.
    """

    per_gpu_hour: Mapping[str, float] = field(default_factory=dict)
    currency: str = ""

    def __bool__(self) -> bool:
        return bool(self.per_gpu_hour)

    def of(self, gpu: str) -> float | None:
        """Price of an hour of one GPU, None where it is not known."""
        return self.per_gpu_hour.get(gpu)

    def replaced(self, others: Mapping[str, float]) -> "Prices":
        """With some prices instead of, or besides, these."""
        return Prices({**self.per_gpu_hour, **others}, self.currency)


def read_prices(path: Path, profiles: Iterable[str] = ()) -> Prices:
    """Read a TOML file with a line for each GPU, such as ``h100-80g = 2.49``, per GPU and hour.

    It may say ``currency = "EUR"`` too.

    Args:
        path: of the file.
        profiles: names of GPUs that are no catalogue's.

    Raises:
        BlendplanError: no such file, not TOML, an unknown GPU, or a price that is none.
    """
    where = f"prices {printable(str(path))}"
    content = read_text(path, where, "give a TOML file with a line such as h100-80g = 2.49", "TOML")
    try:
        table = tomllib.loads(content)
    except RecursionError:
        raise BlendplanError(f"{where} is nested too deeply; that is no list of prices") from None
    except ValueError as error:
        raise BlendplanError(f"{where} is not TOML: {error}") from None
    currency = table.pop(_CURRENCY, "")
    if currency != "":
        currency = text(f"{where}: {_CURRENCY}", currency, 'give a text such as "EUR"', longest=20)
    return Prices(checked_prices(table, profiles, f"{where}: "), currency)


def checked_prices(
    given: Mapping[str, object], profiles: Iterable[str] = (), where: str = ""
) -> dict[str, float]:
    """Prices by the GPUs' own names.

    Args:
        given: price per GPU and hour, by any name of the GPU.
        profiles: names of GPUs that are no catalogue's.
        where: what messages begin with.

    Raises:
        BlendplanError: an unknown GPU, one that is there twice, or a price that is none.
    """
    own = list(profiles)
    found: dict[str, float] = {}
    for name, value in given.items():
        gpu = name if name in own else entry_named("gpus", name)
        if gpu is None:
            wrong = unknown("GPU", name, dict.fromkeys([*own, *gpu_names()]))
            raise BlendplanError(f"{where}price for an {wrong}")
        if gpu in found:
            raise BlendplanError(f"{where}there are two prices for {gpu}; keep one of them")
        found[gpu] = number(f"{where}price of {name}", value, 0.0, _MOST, above_least=True)
    return found
