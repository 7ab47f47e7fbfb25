"""Tables of the GPUs and models that blendplan knows by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from blendplan.report.quantities import binary_size, count


def gpu_table(gpus: Iterable[Mapping[str, Any]]) -> Table:
    """One row per GPU; keys are the fields of `GpuSpec`."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("GPU", no_wrap=True)
    for title in ("bf16 TFLOP/s", "fp8 TFLOP/s", "TB/s", "memory", "link GB/s", "FLOP per byte"):
        table.add_column(title, justify="right")
    table.add_column("calibrated", no_wrap=True)
    for gpu in gpus:
        fp8 = gpu["fp8_flop_per_s"]
        table.add_row(
            gpu["name"],
            f"{gpu['flop_per_s'] / 1e12:.0f}",
            f"{fp8 / 1e12:.0f}" if fp8 else "",
            f"{gpu['bandwidth_bytes_per_s'] / 1e12:.2f}",
            binary_size(gpu["memory_bytes"]),
            f"{gpu['link_bytes_per_s'] / 1e9:.0f}",
            f"{gpu['flop_per_s'] / gpu['bandwidth_bytes_per_s']:.0f}",
            "yes" if gpu["calibrated"] else "no: stated efficiencies",
        )
    return table


def model_table(models: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model; keys are the fields of `ModelSpec` and its counts."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("parameters", "active", "weights", "layers", "KV bytes/token", "context"):
        table.add_column(title, justify="right")
    table.add_column("attention")
    for model in models:
        table.add_row(
            model["name"],
            _billions(model["parameters"]),
            _billions(model["active_parameters"]),
            binary_size(model["weight_bytes"]),
            count(model["layers"]),
            count(model["kv_bytes_per_token"]),
            count(model["max_context_tokens"]),
            model["attention"],
        )
    return table


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:.1f} B"
