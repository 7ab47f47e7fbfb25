"""`EngineLimits`: the limits of an engine that a schedule must respect."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from blendplan.checks.arguments import flag, whole
from blendplan.errors import BlendplanError

GPU_MEMORY_UTILIZATION = 0.9
"""Share of a GPU's memory that an engine may use where nobody says."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits of one engine replica; the names are vLLM's.

    Attributes:
        kv_tokens: capacity of the KV cache in tokens, a multiple of ``block_size``.
        max_num_seqs: most requests that may run at once.
        max_num_batched_tokens: most tokens that one step may compute.
        block_size: tokens in one block of the KV cache.
        async_scheduling: whether a step is scheduled before the output of the one before it is
            there; see `blendplan.simulator.steps`.

    Raises:
        BlendplanError: a limit is out of `blendplan.checks.ranges.RANGES`, or no block fits.
    """

    kv_tokens: int
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    async_scheduling: bool = False

    def __post_init__(self) -> None:
        flag("async_scheduling", self.async_scheduling)
        for name in NUMBERS:
            value = getattr(self, name)
            if type(value) is int and value < 1:
                raise BlendplanError(f"{name} is {value}; it must be at least 1")
            object.__setattr__(self, name, whole(name, value))
        if self.kv_tokens < self.block_size:
            raise BlendplanError(
                f"kv_tokens is {self.kv_tokens}, less than one block of {self.block_size} tokens"
            )

    @property
    def kv_blocks(self) -> int:
        """Capacity of the KV cache in whole blocks."""
        return self.kv_tokens // self.block_size

    def with_step_of(self, tokens: int | None) -> "EngineLimits":
        """The same with steps of so many tokens at most; None for no other limit."""
        if tokens is None or tokens >= self.max_num_batched_tokens:
            return self
        return replace(self, max_num_batched_tokens=tokens)

    @classmethod
    def from_metadata(cls, engine: Mapping[str, Any]) -> "EngineLimits":
        """The limits in the ``engine`` object of a plan's metadata, which holds more than these."""
        return cls(**{name: engine[name] for name in LIMITS if name in engine})

    def as_metadata(self) -> dict[str, Any]:
        """The same as JSON values, by their names here."""
        return asdict(self)


LIMITS = tuple(item.name for item in fields(EngineLimits))
"""Names of all limits, those of the keyword arguments of `machine` too."""
NUMBERS = tuple(name for name in LIMITS if name != "async_scheduling")
"""Names of those that are numbers."""
