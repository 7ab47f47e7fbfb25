"""KV-cache capacity: what is left of a GPU's memory after weights, activations and the runtime."""

from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.kv_layout import KvLayout
from blendplan.hardware.linear_shapes import kv_heads_per_gpu
from blendplan.hardware.model import ModelSpec

GIB = 2**30
# Library handles and workspaces that engines find in use beside torch's own allocations; a
# communicator for more than one GPU takes as much again (aiconfigurator systems/*.yaml: 0.36 GB
# for 2, 0.41 GB for 4 and 8 GPUs).
RUNTIME_BYTES = 0.25 * GIB
COMMUNICATOR_BYTES = 0.4e9


class TooLargeError(BlendplanError):
    """A model does not fit a GPU.

    Attributes:
        missing_bytes: what every GPU lacks, for weights, activations and one block of KV cache.
    """

    def __init__(self, message: str, missing_bytes: float = 0.0) -> None:
        super().__init__(message)
        self.missing_bytes = missing_bytes


def kv_capacity_tokens(
    model: ModelSpec,
    gpu: GpuSpec,
    layout: KvLayout,
    *,
    tp: int = 1,
    utilisation: float = 0.9,
    max_num_batched_tokens: int = EngineLimits.max_num_batched_tokens,
    max_num_seqs: int = EngineLimits.max_num_seqs,
) -> int:
    """Slots of the KV cache, in whole blocks; where all layers keep all tokens, a slot is a token.

    memory x utilisation - weights - activations - runtime, over the bytes of a block; all per
    GPU, as vLLM's memory profiling counts them.

    Args:
        model, gpu, tp: what is loaded where.
        layout: of the KV cache on one GPU.
        utilisation: share of the GPU's memory that the engine takes.
        max_num_batched_tokens, max_num_seqs: limits of a step, whose activations take memory.

    Raises:
        TooLargeError: the model does not fit, with the numbers and what would fit.
    """
    if not 0 < utilisation <= 1:
        raise BlendplanError(f"memory utilisation {utilisation}: expected a share between 0 and 1")
    gpu.require("memory_bytes", purpose="state the capacity of the KV cache with --kv-tokens")
    offered = gpu.memory_bytes * utilisation
    used = _used_bytes(model, tp, max_num_batched_tokens, max_num_seqs)
    blocks = layout.blocks(offered - used)
    if blocks > 0:
        return blocks * layout.block_tokens
    raise TooLargeError(
        f"{model.name} does not fit {gpu.name} with --tp {tp}: weights "
        f"{model.weight_bytes(tp) / GIB:.1f} GiB a GPU, and {used / GIB:.1f} GiB with "
        f"activations, of {offered / GIB:.1f} GiB offered; "
        f"{_what_fits(model, gpu, tp, offered, max_num_batched_tokens, max_num_seqs)}",
        used + layout.bytes_for_blocks(1) - offered,
    )


def activation_bytes(
    model: ModelSpec, *, tp: int = 1, max_num_batched_tokens: int, max_num_seqs: int
) -> float:
    """Estimated peak of activations in one step, of one GPU.

    The larger of the widest layer (input, residual, the fused projection and its product, in
    bf16) and of sampling (logits in bf16, and as fp32 with a copy).
    """
    attention = max(
        (
            (part.heads // tp + 2 * kv_heads_per_gpu(part, tp)) * part.key_dim
            for part in model.attentions
        ),
        default=0,
    )
    width = max(
        (
            max(part.width, part.experts_per_token * part.expert_width)
            for part in model.feed_forwards
        ),
        default=0,
    )
    layer = 2 * max_num_batched_tokens * (3 * model.hidden + max(3 * width // tp, 2 * attention))
    sampling = max_num_seqs * model.vocab * (2 + 4 + 4)
    return float(max(layer, sampling))


def _used_bytes(model: ModelSpec, tp: int, max_num_batched_tokens: int, max_num_seqs: int) -> float:
    activations = activation_bytes(
        model, tp=tp, max_num_batched_tokens=max_num_batched_tokens, max_num_seqs=max_num_seqs
    )
    communicator = COMMUNICATOR_BYTES if tp > 1 else 0.0
    return model.weight_bytes(tp) + activations + RUNTIME_BYTES + communicator


def _what_fits(
    model: ModelSpec, gpu: GpuSpec, tp: int, offered: float, tokens: int, sequences: int
) -> str:
    degree = 2 * tp
    while degree <= 8 and all(part.heads % degree == 0 for part in model.attentions):
        if _used_bytes(model, degree, tokens, sequences) < 0.9 * offered:
            return f"use --tp {degree} or a GPU with more memory"
        degree *= 2
    return "use a GPU with more memory, a higher utilisation or quantised weights"
