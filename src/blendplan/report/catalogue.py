"""Tables of the GPUs and models that blendplan knows by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from blendplan.report.quantities import binary_size, count
from blendplan.report.tables import Column, Columns


def gpu_table(gpus: Iterable[Mapping[str, Any]]) -> Columns:
    """One row per GPU; keys are the fields of `GpuSpec`."""
    return Columns(
        [
            Column("GPU", text=True),
            *map(Column, ("bf16 TFLOP/s", "fp8 TFLOP/s", "TB/s", "memory")),
            Column("link GB/s", spare=1),
            Column("FLOP per byte", spare=2),
            Column("calibrated", text=True),
        ],
        [
            (
                gpu["name"],
                f"{gpu['flop_per_s'] / 1e12:.0f}",
                f"{gpu['fp8_flop_per_s'] / 1e12:.0f}" if gpu["fp8_flop_per_s"] else "",
                f"{gpu['bandwidth_bytes_per_s'] / 1e12:.2f}",
                binary_size(gpu["memory_bytes"]),
                f"{gpu['link_bytes_per_s'] / 1e9:.0f}",
                f"{gpu['flop_per_s'] / gpu['bandwidth_bytes_per_s']:.0f}",
                "yes" if gpu["calibrated"] else "no: stated efficiencies",
            )
            for gpu in gpus
        ],
    )


def model_table(models: Iterable[Mapping[str, Any]]) -> Columns:
    """One row per model; keys are the fields of `ModelSpec` and its counts."""
    return Columns(
        [
            Column("model", text=True),
            Column("parameters"),
            Column("active"),
            Column("weights", spare=1),
            Column("layers", spare=2),
            Column("KV bytes/token", narrow="KV bytes\nper token"),
            Column("context"),
            Column("attention", text=True),
        ],
        [
            (
                model["name"],
                _billions(model["parameters"]),
                _billions(model["active_parameters"]),
                binary_size(model["weight_bytes"]),
                count(model["layers"]),
                count(model["kv_bytes_per_token"]),
                count(model["max_context_tokens"]),
                model["attention"],
            )
            for model in models
        ],
    )


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:.1f} B"
