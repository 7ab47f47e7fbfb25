"""Layers of published models as `KvLayer`s, written out by hand, and random ones.

Sizes are of one GPU, in bf16. Windows, heads and layer patterns are those of each model's
``config.json``; states are those of vLLM's model classes.
"""

import random
from collections.abc import Sequence

from blendplan.hardware.kv_layer import CHUNKED, FULL, SLIDING, STATE, KvLayer


def attention(heads: int, key_dim: int, value_dim: int | None = None, window: int = 0) -> KvLayer:
    """Softmax attention over all tokens or a window."""
    value_dim = key_dim if value_dim is None else value_dim
    kind = SLIDING if window else FULL
    size = heads * (key_dim + value_dim) * 2
    return KvLayer(kind, size, reach=window, shape=(heads, heads * value_dim * 2))


def state(elements: int, bytes_each: int = 2, *, conv: int = 0, checkpoint: int = 0) -> KvLayer:
    """A recurrent state and a convolution's."""
    size = elements * bytes_each + conv * 2
    return KvLayer(STATE, 0, state_bytes=size, checkpoint_tokens=checkpoint)


def repeated(pattern: Sequence[KvLayer], layers: int) -> list[KvLayer]:
    """So many layers of a repeating pattern."""
    return [pattern[number % len(pattern)] for number in range(layers)]


def _gemma_3(layers: int, heads: int, dim: int) -> list[KvLayer]:
    return repeated([attention(heads, dim, window=1024)] * 5 + [attention(heads, dim)], layers)


def _chunked(heads: int, dim: int) -> KvLayer:
    return KvLayer(CHUNKED, heads * dim * 4, reach=8192, shape=(heads, heads * dim * 2))


MAMBA_2_NANO = state(64 * 64 * 128, 4, conv=3 * (4096 + 2 * 8 * 128), checkpoint=1)
DELTA_NET = state(32 * 128 * 128, conv=3 * (2 * 16 * 128 + 32 * 128))
MAMBA_1_JAMBA = state(8192 * 16, conv=3 * 8192)
LATENT = KvLayer(FULL, 576 * 2, latent=True)
INDEXER = KvLayer(FULL, 132, latent=True)

MODELS = {
    "gemma-3-27b": _gemma_3(62, 16, 128),
    "gemma-3-12b": _gemma_3(48, 8, 256),
    "gemma-3-4b": _gemma_3(34, 4, 256),
    "gpt-oss-20b": repeated([attention(8, 64, window=128), attention(8, 64)], 24),
    "gpt-oss-120b": repeated([attention(8, 64, window=128), attention(8, 64)], 36),
    "olmo-3.1-32b": repeated([attention(8, 128, window=4096)] * 3 + [attention(8, 128)], 64),
    "gemma-4-26b": repeated([attention(8, 256, window=1024)] * 5 + [attention(2, 512)], 30),
    "qwen3-next-80b": repeated([DELTA_NET] * 3 + [attention(2, 256)], 48),
    "nemotron-3-nano-30b": [
        MAMBA_2_NANO if kind == "M" else attention(2, 128)
        for kind in "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
        if kind != "E"
    ],
    "jamba-1.5-mini": repeated([MAMBA_1_JAMBA] * 4 + [attention(8, 128)] + [MAMBA_1_JAMBA] * 3, 32),
    "llama-4-scout": repeated([_chunked(8, 128)] * 3 + [attention(8, 128)], 48),
    "mistral-7b-v0.1": repeated([attention(8, 128, window=4096)], 32),
    "llama-3.1-8b": repeated([attention(8, 128)], 32),
    "deepseek-v2-lite": repeated([LATENT], 27),
    "deepseek-v3.2": repeated([LATENT, INDEXER], 122),
    "falcon-mamba-7b": repeated([state(8192 * 16, conv=3 * 8192)], 64),
    "kimi-linear-48b": repeated([state(32 * 128 * 128, 4, conv=3 * 3 * 4096)] * 3 + [LATENT], 27),
    "falcon-h1": repeated(
        [state(24 * 128 * 256, conv=3 * 3584, checkpoint=1), attention(2, 128)], 88
    ),
}


def random_layers(draws: random.Random) -> list[KvLayer]:
    """A few kinds of layers in random order; sizes that divide each other and that do not."""
    kinds = []
    for _ in range(draws.choice([1, 1, 2, 2, 2, 3, 4])):
        kind = draws.choice([FULL, FULL, SLIDING, SLIDING, CHUNKED, STATE])
        if kind == STATE:
            size = draws.choice([1000, 1024, 4096, 5000, 70_000])
            checkpoint = draws.choice([0, 0, 0, 1])
            kinds.append(KvLayer(STATE, 0, state_bytes=size, checkpoint_tokens=checkpoint))
            continue
        size = draws.choice([64, 128, 192, 256, 512])
        latent = kind == FULL and draws.random() < 0.2
        reach = 0 if kind == FULL else draws.choice([5, 32, 100])
        shape = () if latent else (draws.choice([1, 2]), draws.choice([size // 2, size // 4]))
        kinds.append(KvLayer(kind, size, reach=reach, latent=latent, shape=shape))
    layers = [kind for kind in kinds for _ in range(draws.randint(1, 7))]
    draws.shuffle(layers)
    return layers


def random_paged_layers(draws: random.Random) -> list[KvLayer]:
    """Layers whose kernels fix their pages: full attention, and windows with one or several sizes.

    Of windows with several sizes, as many layers have each: vLLM loses others where it splits them.
    """
    layers: list[KvLayer] = []
    for place, tokens in enumerate(draws.sample([2, 4, 8, 16, 32], draws.choice([1, 2, 3, 4]))):
        reach = draws.choice([0, 4, 16, 64]) if place else 0
        kind = SLIDING if reach else FULL
        sizes = draws.sample([512, 576, 1152, 4096, 9216], draws.choice([1, 1, 2, 3]))
        alike = draws.randint(1, 20)
        for size in sizes:
            layer = KvLayer(
                kind, size, reach=reach, latent=True, block_tokens=tokens, page_bytes=size
            )
            layers += [layer] * (alike if reach or draws.random() < 0.5 else draws.randint(1, 20))
    draws.shuffle(layers)
    return layers
