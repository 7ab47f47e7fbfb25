"""`EngineLimits`: the limits of an engine that a schedule must respect."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from blendplan.checks.arguments import flag, whole
from blendplan.errors import BlendplanError
from blendplan.hardware.kv_layout import KvLayout


@dataclass(frozen=True)
class EngineLimits:
    """Limits of one engine replica; the names are vLLM's.

    Attributes:
        kv_tokens: capacity of the KV cache in tokens, a multiple of ``block_size``; in slots where
            there is a layout.
        max_num_seqs: most requests that may run at once.
        max_num_batched_tokens: most tokens that one step may compute.
        block_size: tokens in one block of the KV cache.
        async_scheduling: whether a step is scheduled before the output of the one before it is
            there; see `blendplan.simulator.steps`.
        layout: of the KV cache; None where all layers keep all tokens.

    Raises:
        BlendplanError: a limit is out of `blendplan.checks.ranges.RANGES`, or no block fits.
    """

    kv_tokens: int
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    async_scheduling: bool = False
    layout: KvLayout | None = None

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

    def room_for_output(self, prompt_tokens: Any) -> Any:
        """Longest output that the KV cache holds beside a prompt, or beside each of n prompts.

        Only whole blocks count, and the last generated token is never written to the cache.
        """
        return self.longest_request - prompt_tokens + 1

    @property
    def longest_request(self) -> int:
        """Tokens of the longest request that the KV cache holds alone, its last one left out."""
        if self.layout is None:
            return self.kv_blocks * self.block_size
        return self.layout.longest_request(self.kv_blocks)

    @property
    def least_prefill_tokens(self) -> int:
        """Fewest prefill tokens that a step must be let have.

        Chunks of prompts end where states are kept: with less than a block, one might never begin.
        """
        if self.layout is None or not self.layout.has_states:
            return 0
        return min(self.block_size, self.max_num_batched_tokens)

    @property
    def kv_blocks(self) -> int:
        """Capacity of the KV cache in whole blocks."""
        return self.kv_tokens // self.block_size

    @classmethod
    def from_metadata(cls, engine: Mapping[str, Any]) -> "EngineLimits":
        """The limits in the ``engine`` object of a plan's metadata, which holds more than these."""
        groups = engine.get("kv_groups")
        return cls(
            **{name: engine[name] for name in LIMITS if name in engine},
            layout=None if groups is None else KvLayout.from_metadata("engine.kv_groups", groups),
        )

    def as_metadata(self) -> dict[str, Any]:
        """The same as JSON values, by their names here."""
        limits: dict[str, Any] = {name: getattr(self, name) for name in LIMITS}
        if self.layout is not None:
            limits["kv_groups"] = self.layout.as_metadata()
        return limits


LIMITS = tuple(item.name for item in fields(EngineLimits) if item.name != "layout")
"""Names of those that can be asked for: keyword arguments of `machine`."""
NUMBERS = tuple(name for name in LIMITS if name != "async_scheduling")
"""Names of those that are numbers."""
