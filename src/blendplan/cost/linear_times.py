"""Times of what every token of a step goes through: matrices, what is between them, all-reduce."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.operators.gemm import GemmModel
from blendplan.cost.operators.of_gpu import Operators
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.layers import Layer
from blendplan.hardware.linear_shapes import LinearShape, kv_heads_per_gpu
from blendplan.hardware.model import ModelSpec

# Norms, rotary embedding and activation are not in the tables of GEMM and attention. With these
# values their sum is within 8 % of the A100 and 9 % of the H100 rows of `linear_ops` on average:
# three launches around attention (or a state), two around a feed-forward.
MIXER_LAUNCHES, FEED_FORWARD_LAUNCHES = 3, 2
ELEMENTWISE_LAUNCH_S = 1.5e-6
ELEMENTWISE_BANDWIDTH_SHARE = 0.55


def gemm_s(
    shape: LinearShape, operators: Operators, tokens: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Seconds of one layer's matrix; experts as one GEMM over all experts that the tokens hit."""
    gemm = gemm_of(shape.weight_bits, operators)
    if shape.experts == shape.experts_per_token:
        return gemm.predict(tokens, shape.n, shape.k, weight_bits=shape.weight_bits)
    missed = (1.0 - shape.experts_per_token / shape.experts) ** tokens
    hit = shape.experts * (1.0 - missed)
    tokens_each = np.maximum(tokens * shape.experts_per_token / hit, 1.0)
    return gemm.predict(tokens_each, shape.n * hit, shape.k, weight_bits=shape.weight_bits)


def gemm_of(weight_bits: float, operators: Operators) -> GemmModel:
    """The GEMMs by which weights of that many bits are multiplied.

    Those of 8 bits, of mxfp8 and of nvfp4 are multiplied as they are where the GPU can; all others
    are expanded to bf16 on the way in.
    """
    return operators.quantised.get(weight_bits, operators.head)


def elementwise_s(
    model: ModelSpec, gpu: GpuSpec, tp: int, tokens: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A norm with its residual sum before every part of a layer, and what the parts have inside."""
    rate = ELEMENTWISE_BANDWIDTH_SHARE * gpu.bandwidth_bytes_per_s
    total_s = np.zeros_like(tokens)
    alike: Counter[tuple[int, float]] = Counter()
    for layer, count in model.layer_counts.items():
        alike[_between(layer, model.hidden, tp)] += count
    for (launches, elements), count in alike.items():
        layer_s = launches * ELEMENTWISE_LAUNCH_S + 2.0 * elements * tokens / rate
        total_s += count * layer_s
    return total_s


def _between(layer: Layer, hidden: int, tp: int) -> tuple[int, float]:
    """Launches of one layer, and elements of a token that they read and write."""
    attention, state, part = layer.attention, layer.state, layer.feed_forward
    launches = MIXER_LAUNCHES * len(layer.mixers)
    heads = width = 0.0
    if attention is not None:
        # The rotary embedding.
        heads = (attention.heads + kv_heads_per_gpu(attention, tp)) * attention.key_dim / tp
    if state is not None:
        # Gates and norms of the convolution's width.
        width += state.conv_elements / 3.0
    if part is not None:
        launches += FEED_FORWARD_LAUNCHES
        width += part.width + part.experts_per_token * part.expert_width + part.shared_width
    return launches, 4.0 * hidden * parts_of(layer) + 2.0 * heads + 3.0 * width / tp


def parts_of(layer: Layer) -> int:
    """Parts of a layer that add to the residual stream: mixers as one, and feed-forward."""
    return int(bool(layer.mixers)) + int(layer.feed_forward is not None)


def all_reduce_s(
    model: ModelSpec, operators: Operators, tp: int, tokens: NDArray[np.float64]
) -> NDArray[np.float64]:
    """An all-reduce of the hidden states for each part of each layer."""
    parts = sum(parts_of(layer) * count for layer, count in model.layer_counts.items())
    return float(parts) * operators.all_reduce.predict(tp, 2.0 * model.hidden * tokens)
