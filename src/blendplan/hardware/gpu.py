"""`GpuSpec`: what a GPU can do, from the catalogue or from a profile file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blendplan.errors import BlendplanError

_NUMBERS = (
    "flop_per_s",
    "fp8_flop_per_s",
    "fp4_flop_per_s",
    "bandwidth_bytes_per_s",
    "memory_bytes",
    "link_bytes_per_s",
    "sm_count",
    "l2_bytes",
)


_FLOP = (1e9, 1e18, "FLOP/s, as in 989e12 for 989 TFLOP/s")
_PLAUSIBLE = {
    "flop_per_s": _FLOP,
    "fp8_flop_per_s": _FLOP,
    "fp4_flop_per_s": _FLOP,
    "bandwidth_bytes_per_s": (1e9, 1e15, "bytes/s, as in 3.35e12 for 3.35 TB/s"),
    "memory_bytes": (1e8, 1e14, "bytes, as in 80e9 for 80 GB"),
    "link_bytes_per_s": (1e7, 1e14, "bytes/s, as in 450e9 for 450 GB/s"),
    "sm_count": (1, 1e5, "a number of multiprocessors, as in 132"),
    "l2_bytes": (1e4, 1e11, "bytes, as in 50e6 for 50 MB"),
}


NVFP4_BITS = 4.5
"""Bits per weight of nvfp4, the 8 of a scale for 16 weights included.

Its weights are multiplied with activations of 4 bits; those of mxfp4 (4.25) with 16 in engines, so
they are expanded to bf16 like integers.
"""
MXFP8_BITS = 8.25
"""Bits per weight of mxfp8, the 8 of a scale for 32 weights included.

Units that scale such groups themselves came with those for fp4: Blackwell and CDNA4. On other GPUs
engines expand the weights to bf16 (vLLM 0.32, vllm/model_executor/kernels/linear/mxfp8: FlashInfer
from SM100 on, Triton on gfx95x, Marlin or emulation elsewhere; experts likewise, in
layers/fused_moe/oracle/mxfp8.py).
"""


@dataclass(frozen=True)
class GpuSpec:
    """Datasheet numbers of one GPU; 0 where a profile does not state one.

    Attributes:
        name: catalogue name.
        flop_per_s: dense bf16 matrix peak.
        fp8_flop_per_s: dense fp8 matrix peak, 0 where there is none.
        fp4_flop_per_s: dense fp4 matrix peak, 0 where there is none.
        bandwidth_bytes_per_s: peak of device memory.
        memory_bytes: total device memory as frameworks report it.
        link_bytes_per_s: one direction to the other GPUs of the node.
        sm_count: streaming multiprocessors (compute units).
        l2_bytes: last-level cache.
        source: where the numbers come from.
        fitted: what measurements say beyond the datasheet, as tables: operator parameters fitted to
            kernel times, or prices fitted to a step log; empty when the GPU is not calibrated.
    """

    name: str
    flop_per_s: float
    bandwidth_bytes_per_s: float
    memory_bytes: int
    link_bytes_per_s: float
    sm_count: int
    l2_bytes: int
    fp8_flop_per_s: float = 0.0
    fp4_flop_per_s: float = 0.0
    source: str = ""
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if not 0 <= getattr(self, name) < float("inf"):
                raise BlendplanError(
                    f"GPU {self.name}: {name} is {getattr(self, name)}; it must be positive"
                )

        if not isinstance(self.fitted, Mapping):
            raise BlendplanError(f"GPU {self.name}: fitted is {self.fitted!r}; expected a table")

    def check_units(self, where: str) -> None:
        """Refuse numbers that no device has, which are those of another unit.

        Args:
            where: what the error calls the source of the numbers.

        Raises:
            BlendplanError: with the field, its value and the unit expected.
        """
        for name, (least, most, unit) in _PLAUSIBLE.items():
            value = getattr(self, name)
            if value and not least <= value <= most:
                raise BlendplanError(f"{where}: {name} is {value:g}; expected {unit}")

    def require(self, *names: str, purpose: str) -> None:
        """Refuse what needs numbers that the profile does not state.

        Raises:
            BlendplanError: one of the fields is 0.
        """
        for name in names:
            if not getattr(self, name):
                raise BlendplanError(f"GPU {self.name} states no {name}; {purpose}")

    @property
    def calibrated(self) -> bool:
        """Whether anything was fitted to measurements."""
        return bool(self.fitted)

    @property
    def scales_groups(self) -> bool:
        """Whether its matrix units scale small groups of fp8 weights; see `MXFP8_BITS`."""
        return self.fp8_flop_per_s > 0 and self.fp4_flop_per_s > 0

    def without(self, *tables: str) -> "GpuSpec":
        """The same without those tables of ``fitted``."""
        kept = {name: table for name, table in self.fitted.items() if name not in tables}
        return replace(self, fitted=kept)

    def peak_flop_per_s(self, weight_bits: float) -> float:
        """Matrix peak for weights of that many bits.

        fp8, mxfp8 and nvfp4 weights run on units of their own where the GPU has them; weights of
        other bits are expanded to bf16 first.
        """
        own = {8.0: self.fp8_flop_per_s}
        if self.scales_groups:
            own[MXFP8_BITS] = self.fp8_flop_per_s
        own |= dict.fromkeys((4.0, NVFP4_BITS), self.fp4_flop_per_s)
        return own.get(weight_bits) or self.flop_per_s
