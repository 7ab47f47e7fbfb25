"""`Combination`: a machine with settings that a quote looks at, and which of them fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from blendplan.cost.launches import LAUNCHES, with_launches
from blendplan.cost.machine import Machine, machine
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.kv_capacity import GIB, TooLargeError
from blendplan.hardware.lookup import gpu_spec
from blendplan.planning.quoting.listed import LISTED
from blendplan.requests.columns import Requests
from blendplan.requests.fitting import too_long


@dataclass(frozen=True)
class Combination:
    """One value of all that may have several.

    Attributes:
        settings: values by the names in `LISTED`, as they were given.
        target: the machine of each replica.
    """

    settings: Mapping[str, Any]
    target: Machine

    @property
    def replicas(self) -> int:
        """Engines that share the requests."""
        return int(self.settings["replicas"])

    @property
    def gpus(self) -> int:
        """GPUs of all engines together."""
        return self.target.tp * self.replicas


@dataclass(frozen=True)
class Unfit:
    """A combination that does not work.

    Attributes:
        settings: as of `Combination`.
        reason: why, in a line.
        missing_bytes: memory that every GPU lacks; None where that is not the reason.
    """

    settings: Mapping[str, Any]
    reason: str
    missing_bytes: float | None = None


def combinations(
    listed: Mapping[str, Sequence[Any]], engine: Mapping[str, Any]
) -> tuple[list[Combination], list[Unfit]]:
    """All combinations, those of which the model fits its GPUs and the others.

    Launches are as much of the CPU as of the GPU: where not all GPUs have them, none has.

    Args:
        listed: values of each name in `LISTED`.
        engine: other arguments of `machine`.
    """
    fitting, unfit = [], []
    machines: dict[tuple[int, ...], Machine | Unfit] = {}
    specs = [one if isinstance(one, GpuSpec) else gpu_spec(one) for one in listed["gpu"]]
    if with_launches(specs):
        specs = [spec.without(LAUNCHES) for spec in specs]
    for places in product(*(range(len(listed[name])) for name in LISTED)):
        place = dict(zip(LISTED, places, strict=True))
        settings = {name: listed[name][place[name]] for name in LISTED}
        of_machine = [name for name in LISTED if name != "replicas"]
        key = tuple(place[name] for name in of_machine)
        if key not in machines:
            given = {name: settings[name] for name in of_machine}
            machines[key] = _machine({**given, **engine, "gpu": specs[place["gpu"]]})
        found = machines[key]
        if isinstance(found, Machine):
            fitting.append(Combination(settings, found))
        else:
            unfit.append(Unfit(settings, found.reason, found.missing_bytes))
    return fitting, unfit


def _machine(arguments: Mapping[str, Any]) -> Machine | Unfit:
    try:
        return machine(**arguments)
    except TooLargeError as error:
        gigabytes = error.missing_bytes / GIB
        return Unfit({}, f"every GPU lacks {gigabytes:.1f} GiB", error.missing_bytes)
    except BlendplanError as error:
        return Unfit({}, str(error))


def lacking_cache(requests: Requests, target: Machine) -> Unfit | None:
    """Why the KV cache of a machine is too small for some request, None where it is not."""
    rows = too_long(requests, target.longest_request)
    if not len(rows):
        return None
    outputs = requests.output_tokens[rows].clip(min=1)
    longest = int((requests.prompt_tokens[rows].astype("int64") + outputs - 1).max())
    layout = target.layout
    blocks = int(layout.needed_blocks(longest)) - target.limits.kv_blocks
    missing = blocks * layout.bytes_per_block
    return Unfit(
        {},
        f"a request of {longest:,} tokens needs {missing / GIB:.1f} GiB more a GPU for its KV "
        f"cache than there is ({target.longest_request:,} tokens)",
        float(missing),
    )
