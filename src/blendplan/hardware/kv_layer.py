"""`KvLayer`: what one layer keeps of a request on one GPU."""

from dataclasses import dataclass

from blendplan.errors import BlendplanError

FULL, SLIDING, CHUNKED, STATE = "full", "sliding", "chunked", "state"
KINDS = (FULL, SLIDING, CHUNKED, STATE)


@dataclass(frozen=True)
class KvLayer:
    """What one layer keeps on one GPU, as vLLM 0.32 has it (vllm/v1/kv_cache_interface.py).

    A layer that reuses the keys and values of another one keeps nothing: leave it out. One that
    has attention and a state beside it keeps two things: give both.

    Attributes:
        kind: ``full`` keeps all tokens, ``sliding`` those of a window, ``chunked`` those of the
            chunk at hand (Llama 4), ``state`` one state of constant size (Mamba, linear attention).
        bytes_per_token: of keys and values, or of the latent vector; 0 for a state.
        state_bytes: of the state; 0 for attention.
        reach: tokens of the window or chunk, the query's own included; 0 for the other kinds.
        latent: multi-head latent attention, one vector for all heads.
        shape: what sets layers of equal size apart, as heads and their dimensions: vLLM puts only
            equal layers in one group.
        block_tokens, page_bytes: of a page that the layer's kernels fix; 0 for both where it
            follows from ``bytes_per_token`` and the engine's block.
        checkpoint_tokens: a state can be saved inside a chunk, at a multiple of so many tokens
            from its start; 0 where it cannot. Mamba-2 can at any token.

    Raises:
        BlendplanError: an unknown kind, or sizes that do not go with it.
    """

    kind: str
    bytes_per_token: int
    state_bytes: int = 0
    reach: int = 0
    latent: bool = False
    shape: tuple[int, ...] = ()
    block_tokens: int = 0
    page_bytes: int = 0
    checkpoint_tokens: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BlendplanError(f"a layer keeps {self.kind!r}; known kinds are {', '.join(KINDS)}")
        size = self.state_bytes if self.kind == STATE else self.bytes_per_token
        if type(size) is not int or size < 1:
            raise BlendplanError(f"a {self.kind} layer keeps {size!r} bytes; it must be at least 1")
        bounded = self.kind in (SLIDING, CHUNKED)
        if type(self.reach) is not int or (self.reach >= 1) is not bounded:
            raise BlendplanError(
                f"a {self.kind} layer reaches {self.reach!r} tokens back; "
                f"it must be {'at least 1' if bounded else '0'}"
            )
        if (self.block_tokens > 0) is not (self.page_bytes > 0):
            raise BlendplanError(
                f"a {self.kind} layer has pages of {self.page_bytes!r} bytes for "
                f"{self.block_tokens!r} tokens; state both or neither"
            )
