"""What a calibration found, for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from blendplan.report.quantities import count
from blendplan.report.tables import Column, Columns


def calibrated(found: Mapping[str, Any]) -> Group:
    """Fits to kernel times, the price of a step or what it takes beside them, and where they are.

    Args:
        found: keys as in ``blendplan calibrate --json``.
    """
    parts: list[RenderableType] = []
    if "fits" in found:
        columns = [
            Column("operator", text=True),
            Column("dtype", text=True),
            Column("kernel", text=True),
            Column("rows"),
            Column("mean error"),
        ]
        rows = [
            (
                fit["operator"],
                fit["dtype"],
                fit["kernel"],
                count(fit["rows"]),
                f"{fit['mape']:.1f} %",
            )
            for fit in found["fits"]
        ]
        parts += [Columns(columns, rows), ""]
    if "steps" in found:
        steps = found["steps"]
        parts += [
            f"{steps['steps']:,} steps of {steps['model']}: "
            f"{1e3 * steps['step_s']:.3f} ms a step, "
            f"{1e3 * steps['prefill_step_s']:.3f} ms more with prompts, "
            f"{1e6 * min(steps['token_s']):.3f} to {1e6 * max(steps['token_s']):.3f} us a token, "
            f"{1e6 * steps['sequence_s']:.3f} us a sequence, "
            f"{1e9 * steps['kv_token_s']:.3f} ns a KV token",
            f"median error of a step {100 * steps['median_error_share']:.1f} %, "
            f"stalls {100 * steps['stall_share']:.1f} % of the time",
        ]
    if "launches" in found:
        launches = found["launches"]
        parts.append(
            f"{launches['source']}, beside their kernels: "
            f"{1e3 * launches['step_s']:.3f} ms a step, "
            f"{1e3 * launches['layer_s']:.3f} ms more for each layer with prompts"
        )
    return Group(*parts, f"wrote {found['profile']}")
