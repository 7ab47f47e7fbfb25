"""`Launches`: what an engine's steps take beside their kernels."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from blendplan.checks.arguments import number
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec

LAUNCHES = "launches"
"""Their table in ``fitted`` of a GPU."""
# More than any step takes.
_MOST_S = 1e3


class Launches(NamedTuple):
    """Seconds that kernel times do not have.

    A step that only decodes is one CUDA graph. One with prompts is launched layer by layer, by a
    CPU that a GPU with little to do has to wait for (vLLM's ``FULL_AND_PIECEWISE``,
    vllm/config/compilation.py).

    Attributes:
        step_s: of every step.
        layer_s: of each layer in a step with prompt tokens.
    """

    step_s: float = 0.0
    layer_s: float = 0.0


def with_launches(gpus: Iterable[GpuSpec]) -> list[str]:
    """Names of those GPUs that have them, where others do not; none where all or no GPUs do."""
    looked_at = list(gpus)
    known = [gpu.name for gpu in looked_at if LAUNCHES in gpu.fitted]
    return known if len(known) < len(looked_at) else []


def launches_of(gpu: GpuSpec) -> Launches:
    """Those that were measured with a GPU; none where nobody did.

    Raises:
        BlendplanError: a profile's table is not what `calibrate` writes.
    """
    table = gpu.fitted.get(LAUNCHES)
    if table is None:
        return Launches()
    where = f"GPU {gpu.name}: fitted.{LAUNCHES}"
    if not isinstance(table, Mapping) or not set(Launches._fields) <= set(table):
        raise BlendplanError(f"{where}: expected the numbers {', '.join(Launches._fields)}")
    return Launches(
        *(number(f"{where}.{name}", table[name], 0.0, _MOST_S) for name in Launches._fields)
    )
