"""`EngineSettings`: the limits of an engine that a schedule must respect."""

from dataclasses import dataclass

from blendplan.arguments import whole
from blendplan.errors import BlendplanError


@dataclass(frozen=True)
class EngineSettings:
    """Limits of one engine replica; the names are vLLM's.

    Attributes:
        kv_tokens: capacity of the KV cache in tokens, a multiple of ``block_size``.
        max_num_seqs: most requests that may run at once.
        max_num_batched_tokens: most tokens that one step may compute.
        block_size: tokens in one block of the KV cache.

    Raises:
        BlendplanError: a limit is out of `blendplan.limits.LIMITS`, or no block fits.
    """

    kv_tokens: int
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 2048
    block_size: int = 16

    def __post_init__(self) -> None:
        for name in ("kv_tokens", "max_num_seqs", "max_num_batched_tokens", "block_size"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.kv_tokens < self.block_size:
            raise BlendplanError(
                f"kv_tokens is {self.kv_tokens}, less than one block of {self.block_size} tokens"
            )

    @property
    def kv_blocks(self) -> int:
        """Capacity of the KV cache in whole blocks."""
        return self.kv_tokens // self.block_size
