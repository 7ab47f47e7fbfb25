"""`Workload`: what the simulated engine must know of the requests."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.tree.blocks import BlockChains


@dataclass(frozen=True)
class Workload:
    """n requests as the simulated engine sees them.

    Attributes:
        prompt_tokens: int32 [n].
        output_tokens: tokens that each request will generate, at least 1; int32 [n].
        chains: which KV blocks of the prompts hold the same tokens as another request's.
    """

    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    chains: BlockChains

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def longest_tokens(self) -> int:
        """Prompt and output tokens of the longest request; 0 without any."""
        return int((self.prompt_tokens.astype(np.int64) + self.output_tokens).max(initial=0))

    def check_fits(self, limits: EngineLimits, layout: KvLayout | None = None) -> None:
        """Raise a BlendplanError when a request can never run within the KV cache alone.

        Args:
            limits: of the engine.
            layout: of the KV cache; None where all layers keep all tokens.
        """
        longest = limits.kv_blocks * limits.block_size
        if layout is not None:
            longest = layout.longest_request(limits.kv_blocks)
        total = self.prompt_tokens.astype(np.int64) + self.output_tokens
        # The last generated token is never written to the cache.
        too_long = np.flatnonzero(total - 1 > longest)
        if len(too_long):
            worst = int(too_long[np.argmax(total[too_long])])
            raise BlendplanError(
                f"{len(too_long)} of {len(self)} requests can never fit the KV cache of "
                f"{limits.kv_tokens} tokens; the longest is row {worst} with "
                f"{self.prompt_tokens[worst]} prompt and {self.output_tokens[worst]} output "
                f"tokens: lower its max_tokens, drop it, or raise the capacity (tp, kv dtype)"
            )
