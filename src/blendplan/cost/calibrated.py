"""`CalibratedCost`: steps priced by operator models that were fitted to measured kernels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.operators.of_gpu import Operators, operators
from blendplan.cost.step import StepTable
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.layers import Attention
from blendplan.hardware.linear_shapes import LinearShape, kv_heads_per_gpu
from blendplan.hardware.model import ModelSpec, linear_shapes

# What a step consists of; the last only where several GPUs share the model.
WORDS = {
    "gemm": "GEMM",
    "decode_attention": "decode attention",
    "prefill_attention": "prefill attention",
    "all_reduce": "all-reduce",
}
# Norms, rotary embedding and activation are not in the tables of GEMM and attention. With these
# values their sum is within 8 % of the A100 and 9 % of the H100 rows of `linear_ops` on average.
ELEMENTWISE_LAUNCHES = 5
ELEMENTWISE_LAUNCH_S = 1.5e-6
ELEMENTWISE_BANDWIDTH_SHARE = 0.55
# Latent attention has no published table: the share of the matrix peak that its products reach.
LATENT_FLOP_SHARE = 0.5
# Steps over which attention is made linear in pairs, tokens and sequences.
PREFILL_TOKENS = (256, 512, 1024, 2048, 4096, 8192)
PREFILL_SEQUENCES = (1, 2, 4, 8)
CACHED_TOKENS = (0, 1024, 4096)
DECODE_SEQUENCES = (1, 4, 16, 64, 128, 256, 512, 1024)
DECODE_CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384)
LEAST_DECODE_KV_TOKENS = 16384
BEST_PRICE_TOKENS = tuple(range(256, 4097, 256))


@dataclass(frozen=True)
class CalibratedCost:
    """Every operator takes the time that its fitted model predicts.

    Attributes:
        model, gpu, tp: what is priced; ``tp`` GPUs share the work.
    """

    model: ModelSpec
    gpu: GpuSpec
    tp: int

    @property
    def name(self) -> str:
        """``calibrated``."""
        return "calibrated"

    @property
    def note(self) -> str:
        """Says so where operators take stated efficiencies because nobody measured them."""
        needed = [name for name in WORDS if name != "all_reduce" or self.tp > 1]
        missing = [name for name in needed if name not in self._operators.measured]
        if not missing:
            return ""
        what = ""
        if len(missing) < len(needed):
            words = ", ".join(WORDS[name] for name in missing)
            what = f" for {words} of this model's data types"
        return (
            f"{self.gpu.name} is not calibrated{what}: stated efficiencies set the times; "
            "'blendplan calibrate' fits them to measurements"
        )

    @cached_property
    def _operators(self) -> Operators:
        return operators(self.gpu, weight_bits=self.model.weight_bits, kv_bits=self.model.kv_bits)

    def parameters(self) -> dict[str, Any]:
        """Which measurements the prices rest on, and the parameters, as JSON values."""
        used = self._operators
        return {
            "measured": list(used.measured),
            "kernels": dict(used.kernels),
            "source": str(self.gpu.fitted.get("source", "not calibrated: stated efficiencies")),
            "gemm": used.gemm.parameters_._asdict(),
            "decode_attention": used.decode.parameters_._asdict(),
            "prefill_attention": used.prefill.parameters_._asdict(),
            "tp": self.tp,
        }

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of compute and of decode attention in well-filled steps; float64 [n] each.

        Tokens count at the best price per token, attention at its price per pair and per token
        read; what is paid per step is left out.
        """
        p = np.asarray(prompt_tokens, np.float64)
        d = np.asarray(output_tokens, np.float64)
        token_s, head_s, (pair_s, new_s, _), (read_s, sequence_s, _) = self._prices
        compute_s = (p + d) * token_s + d * head_s + p * (p + 1.0) / 2.0 * pair_s + p * new_s
        memory_s = (p * d + d * d / 2.0) * read_s + d * sequence_s
        return compute_s, memory_s

    @cached_property
    def _prices(
        self,
    ) -> tuple[float, float, NDArray[np.float64], NDArray[np.float64]]:
        tokens = np.array(BEST_PRICE_TOKENS, np.float64)
        token_s = float((self._linear_s(tokens) / tokens).min())
        head_s = float((self._head_s(tokens) / tokens).min())
        return token_s, head_s, self._prefill_prices(), self._decode_prices(max(DECODE_SEQUENCES))

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        """Prices of all token counts from the GEMM model; attention made linear."""
        tokens = np.arange(max_num_batched_tokens + 1, dtype=np.float64)
        sequences = np.arange(max_num_seqs + 1, dtype=np.float64)
        linear_s, head_s = np.zeros(len(tokens)), np.zeros(len(sequences))
        linear_s[1:] = self._linear_s(tokens[1:])
        head_s[1:] = self._head_s(sequences[1:])
        return StepTable(
            linear_s=linear_s,
            head_s=head_s,
            prefill_attention=self._prefill_prices(),
            decode_attention=self._decode_prices(max_num_seqs),
            overlap=float(overlap),
            step_s=0.0,
        )

    def _linear_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Linear layers, what lies between them, and communication, of steps of some tokens."""
        total_s = self._elementwise_s(tokens) + self._all_reduce_s(tokens)
        for shape in linear_shapes(self.model, self.tp):
            total_s += shape.layers * self._gemm_s(shape, tokens)
        return total_s

    def _gemm_s(self, shape: LinearShape, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """One layer's GEMM; experts as one GEMM over all experts that the tokens hit."""
        gemm = self._operators.gemm if shape.weight_bits < 16 else self._operators.head
        if shape.experts == shape.experts_per_token:
            return gemm.predict(tokens, shape.n, shape.k, weight_bits=shape.weight_bits)
        missed = (1.0 - shape.experts_per_token / shape.experts) ** tokens
        hit = shape.experts * (1.0 - missed)
        tokens_each = np.maximum(tokens * shape.experts_per_token / hit, 1.0)
        return gemm.predict(tokens_each, shape.n * hit, shape.k, weight_bits=shape.weight_bits)

    def _head_s(self, sequences: NDArray[np.float64]) -> NDArray[np.float64]:
        """The output head of the sequences that sample."""
        vocab = -(-self.model.vocab // self.tp)
        return self._operators.head.predict(sequences, vocab, self.model.hidden)

    def _elementwise_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Two norms with their residual sums, rotary embedding and activation of every layer."""
        rate = ELEMENTWISE_BANDWIDTH_SHARE * self.gpu.bandwidth_bytes_per_s
        total_s = np.zeros_like(tokens)
        for layer, count in self.model.layer_counts.items():
            heads, width, attention, part = 0.0, 0, layer.attention, layer.feed_forward
            if attention is not None:
                heads = attention.heads + kv_heads_per_gpu(attention, self.tp)
                heads *= attention.key_dim / self.tp
            if part is not None:
                width = part.width + part.experts_per_token * part.expert_width + part.shared_width
            elements = 8.0 * self.model.hidden + 2.0 * heads + 3.0 * width / self.tp
            layer_s = ELEMENTWISE_LAUNCHES * ELEMENTWISE_LAUNCH_S + 2.0 * elements * tokens / rate
            total_s += count * layer_s
        return total_s

    def _all_reduce_s(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Two all-reduces of the hidden states per layer."""
        message_bytes = 2.0 * self.model.hidden * tokens
        return (
            2.0
            * self.model.layer_count
            * self._operators.all_reduce.predict(self.tp, message_bytes)
        )

    def _prefill_prices(self) -> NDArray[np.float64]:
        """Seconds per pair, new token and step of prefill attention; float64 [3]."""
        tokens, sequences, cached = (
            grid.ravel().astype(np.float64)
            for grid in np.meshgrid(PREFILL_TOKENS, PREFILL_SEQUENCES, CACHED_TOKENS)
        )
        new = tokens / sequences
        time_s = np.zeros_like(new)
        for attention, count in self.model.attentions.items():
            heads = attention.heads // self.tp
            kv_heads, head_dim = kv_heads_per_gpu(attention, self.tp), attention.key_dim
            if attention.latent:
                kv_heads, head_dim = heads, attention.key_dim + attention.rope_dim
            time_s += count * self._operators.prefill.predict(
                sequences, new, cached, heads, kv_heads, head_dim
            )
        pairs = sequences * (new * cached + new * (new + 1.0) / 2.0)
        return _linear_prices(np.column_stack([pairs, tokens, np.ones_like(tokens)]), time_s)

    def _decode_prices(self, max_num_seqs: int) -> NDArray[np.float64]:
        """Seconds per KV token read, sequence and step of decode attention; float64 [3]."""
        counts = [count for count in DECODE_SEQUENCES if count <= max(max_num_seqs, 4)]
        sequences, context = (
            grid.ravel().astype(np.float64) for grid in np.meshgrid(counts, DECODE_CONTEXTS)
        )
        # Steps that an engine with a full KV cache runs; a nearly empty one costs its launches.
        wanted = (sequences * context >= LEAST_DECODE_KV_TOKENS) | (sequences == 1)
        sequences, context = sequences[wanted], context[wanted]
        time_s = np.zeros_like(context)
        for attention, count in self.model.attentions.items():
            kv_heads, head_dim = kv_heads_per_gpu(attention, self.tp), float(attention.key_dim)
            if attention.latent:
                # Keys and values are one latent vector for all heads: half the bytes of two.
                kv_heads, head_dim = 1, (attention.latent + attention.rope_dim) / 2.0
            of_kind_s = count * self._operators.decode.predict(
                sequences, context, attention.heads // self.tp, kv_heads, head_dim
            )
            if attention.latent:
                flop_s = count * self._latent_flop_s(attention, sequences * context)
                of_kind_s = np.hypot(of_kind_s, flop_s)
            time_s += of_kind_s
        terms = np.column_stack([sequences * context, sequences, np.ones_like(sequences)])
        return _linear_prices(terms, time_s)

    def _latent_flop_s(
        self, attention: Attention, kv_tokens: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Matrix products of a layer's latent attention; all heads read each KV token."""
        per_token = 2.0 * (2.0 * attention.latent + attention.rope_dim) * attention.heads / self.tp
        rate = LATENT_FLOP_SHARE * self.gpu.flop_per_s
        return per_token * kv_tokens / rate


def calibrated_cost(model: ModelSpec, gpu: GpuSpec, tp: int = 1) -> CalibratedCost:
    """The calibrated cost of a model on ``tp`` GPUs.

    A GPU that was not measured takes stated efficiencies; see ``parameters()["measured"]``.

    Raises:
        BlendplanError: a tp that does not divide the model, or bad parameters in a profile.
    """
    linear_shapes(model, tp)  # refuses a degree that does not divide the model
    cost = CalibratedCost(model, gpu, tp)
    cost.parameters()  # refuses bad parameters
    return cost


def _linear_prices(terms: NDArray[np.float64], time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative prices of the terms, with the least squared relative error."""
    from scipy.optimize import nnls  # slow to import

    relative = terms / time_s[:, None]
    scale = relative.max(axis=0)
    return np.asarray(nnls(relative / scale, np.ones(len(time_s)))[0] / scale, np.float64)
