"""The table of the GPUs that blendplan knows by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from blendplan.report.quantities import binary_size
from blendplan.report.tables import Column, Columns


def gpu_table(gpus: Iterable[Mapping[str, Any]]) -> Columns:
    """One row per GPU; keys are the fields of `GpuSpec`."""
    return Columns(
        [
            Column("GPU", text=True),
            *map(Column, ("bf16 TFLOP/s", "fp8 TFLOP/s")),
            Column("fp4 TFLOP/s", spare=3),
            *map(Column, ("TB/s", "memory")),
            Column("link GB/s", spare=1),
            Column("FLOP per byte", spare=2),
            Column("calibrated", text=True),
        ],
        [
            (
                gpu["name"],
                f"{gpu['flop_per_s'] / 1e12:.0f}",
                f"{gpu['fp8_flop_per_s'] / 1e12:.0f}" if gpu["fp8_flop_per_s"] else "",
                f"{gpu['fp4_flop_per_s'] / 1e12:.0f}" if gpu["fp4_flop_per_s"] else "",
                f"{gpu['bandwidth_bytes_per_s'] / 1e12:.2f}",
                binary_size(gpu["memory_bytes"]),
                f"{gpu['link_bytes_per_s'] / 1e9:.0f}",
                f"{gpu['flop_per_s'] / gpu['bandwidth_bytes_per_s']:.0f}",
                "yes" if gpu["calibrated"] else "no",
            )
            for gpu in gpus
        ],
    )
