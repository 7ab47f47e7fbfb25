"""Calibrate: from tables of kernel times to a GPU profile."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from blendplan.cost.calibration.operator_fits import (
    LEAST_ROWS,
    Fit,
    default_kernel,
    enough,
    fits,
    foretell,
    learn,
)
from blendplan.cost.calibration.search import mean_absolute_share
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec

Progress = Callable[[str, int, int], None]
DIGITS = 5
# vLLM's own, then what serves where that does not: within a CUDA graph, as engines run it.
DEFAULT_REDUCES = ("vllm_graph", "nccl_graph")


class FitReport(NamedTuple):
    """How well one operator model fits the rows that it was fitted to.

    Attributes:
        operator, dtype, kernel: what was fitted.
        rows: measurements.
        error_share: mean of |predicted / measured - 1| over them.
    """

    operator: str
    dtype: str
    kernel: str
    rows: int
    error_share: float


def calibrate_kernels(
    folder: Path,
    gpu: GpuSpec,
    *,
    called: str = "",
    source: str = "",
    progress: Progress | None = None,
) -> tuple[GpuSpec, list[FitReport]]:
    """The GPU with operator parameters fitted to the tables of a folder, and how well they fit.

    Args:
        folder: with tables in the format of `blendplan.cost.calibration.kernel_tables`.
        gpu: whose rows to use: those with its name, or another that the catalogue has for it.
        called: one more name that the tables have for the GPU.
        source: what the profile says about the measurements' origin.
        progress: called with the kernel that is being fitted, fits done, and fits in all.

    Raises:
        BlendplanError: no tables, bad ones, or no rows of this GPU.
    """
    chosen = [fit for fit in fits(folder, gpu, called) if enough(fit)]
    if not chosen:
        others = sorted({fit.gpu for fit in fits(folder) if enough(fit)})
        there = f"it has rows of {', '.join(others)}" if others else "nor of any other known GPU"
        raise BlendplanError(
            f"{folder} has no usable rows of {gpu.name}, {there}; at least {LEAST_ROWS} rows of a "
            "kernel are needed, with the GPU's name in the column gpu"
        )
    fitted: dict[str, Any] = {"source": source or f"kernel times in {folder.name}"}
    reports = []
    for done, fit in enumerate(chosen):
        if progress is not None:
            progress(" ".join((fit.operator, *fit.path)), done, len(chosen))
        place = fitted.setdefault(fit.operator, {})
        for step in fit.path[:-1]:
            place = place.setdefault(step, {})
        table = _rounded(learn(fit))
        place[fit.path[-1]] = table
        error = mean_absolute_share(foretell(fit, table, fit.rows), fit.rows.time_s)
        reports.append(FitReport(fit.operator, fit.dtype, fit.path[-1], len(fit.rows), error))
    fitted["default"] = _defaults(chosen)
    return replace(gpu, fitted=fitted), reports


def _defaults(chosen: list[Fit]) -> dict[str, Any]:
    """The kernels that prices rest on, by operator and dtype."""
    kernels: dict[tuple[str, str], list[Fit]] = defaultdict(list)
    for fit in chosen:
        if fit.operator in ("decode_attention", "prefill_attention"):
            kernels[fit.operator, fit.dtype].append(fit)
    defaults: dict[str, Any] = {}
    for (operator, dtype), found in kernels.items():
        defaults.setdefault(operator, {})[dtype] = default_kernel(found)
    sources = [fit.path[-1] for fit in chosen if fit.operator == "all_reduce"]
    if sources:
        known = [source for source in DEFAULT_REDUCES if source in sources]
        defaults["all_reduce"] = (known or sources)[0]
    return defaults


def _rounded(value: Any) -> Any:
    """The same with floats to five digits, far finer than any fit."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
