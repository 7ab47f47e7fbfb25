"""`AttentionPrices`: what lets tokens see earlier ones, priced by fitted operators.

Attention is made linear in pairs, tokens and sequences over the steps that engines run, for each
reach by itself; recurrent layers in tokens and sequences.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.looks import Look, looks_of, reach_of
from blendplan.cost.operators import recurrence
from blendplan.cost.operators.decode_attention import WINDOW_EDGE
from blendplan.cost.operators.of_gpu import Operators
from blendplan.cost.reach import OWN_TOKEN, Reach
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec

# Latent attention: the share of the matrix peak that its products reach.
LATENT_FLOP_SHARE = 0.5
# The same of an indexer's, of the fp8 peak where there is one: 0.45 in the median on H100 and H200
# and 0.38 on B200 (`deep_gemm.fp8_mqa_logits` in aiconfigurator-core 0.12.0, ``glm5_mqa_logits``).
INDEXER_FLOP_SHARE = 0.42
# Steps over which attention is made linear in pairs, tokens and sequences.
PREFILL_TOKENS = (256, 512, 1024, 2048, 4096, 8192)
PREFILL_SEQUENCES = (1, 2, 4, 8)
CACHED_TOKENS = (0, 1024, 4096)
DECODE_SEQUENCES = (1, 4, 16, 64, 128, 256, 512, 1024)
DECODE_CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16384)
LEAST_DECODE_KV_TOKENS = 16384

Prices = NDArray[np.float64]
# Seconds over the layers of a look, of steps of some sequences with some tokens of context.
_Time = Callable[[Look, NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class AttentionPrices:
    """Prices of one model on one GPU of ``tp`` that share it.

    Attributes:
        model, gpu, tp: what is priced.
        operators: of the GPU.
        max_num_seqs: most sequences that decode in a step.
    """

    model: ModelSpec
    gpu: GpuSpec
    tp: int
    operators: Operators
    max_num_seqs: int

    @cached_property
    def looks(self) -> list[Look]:
        """In which ways the model looks at earlier tokens."""
        return looks_of(self.model, self.tp)

    @property
    def prefill(self) -> Prices:
        """Seconds per pair, per new prompt token and per step with any prefill; float64 [3]."""
        pair_s = self._merged[1]
        scan = self._scan
        token_s = sum((prices[1] for prices in self._prefill.values()), scan[0])
        step_s = sum((prices[2] for prices in self._prefill.values()), scan[1])
        return np.array([pair_s, token_s, step_s])

    @property
    def decode(self) -> Prices:
        """Seconds per KV token read, per sequence and per step with any decode; float64 [3]."""
        read_s = self._merged[2]
        sequence_s = sum(prices[1] for prices in self._decode.values())
        step_s = sum(prices[2] for prices in self._decode.values()) + self._states[1]
        if not self.looks:
            # Nothing is read but states, which count as a token each.
            return np.array([self._states[0], 0.0, step_s])
        return np.array([read_s, sequence_s, step_s])

    @property
    def state_s(self) -> float:
        """Seconds per decoding sequence for its states, beside tokens that are read."""
        return self._states[0] if self.looks else 0.0

    @property
    def reach(self) -> Reach:
        """How far back the layers look."""
        return self._merged[0] if self.looks else OWN_TOKEN

    @cached_property
    def _merged(self) -> tuple[Reach, float, float]:
        """The reach, with the price of a pair and of a read over all layers."""
        firsts = [self._of_reach(reach)[0] for reach in self._prefill]
        pair_s = [float(prices[0]) for prices in self._prefill.values()]
        read_s = [float(prices[0]) for prices in self._decode.values()]
        return reach_of(firsts, pair_s, read_s)

    def _of_reach(self, reach: tuple[int, bool]) -> list[Look]:
        return [look for look in self.looks if look.reach == reach]

    @property
    def _reaches(self) -> list[tuple[int, bool]]:
        return list(dict.fromkeys(look.reach for look in self.looks))

    @cached_property
    def _prefill(self) -> dict[tuple[int, bool], Prices]:
        """By reach, seconds per pair, new token and step."""
        tokens, sequences, cached = (
            grid.ravel().astype(np.float64)
            for grid in np.meshgrid(PREFILL_TOKENS, PREFILL_SEQUENCES, CACHED_TOKENS)
        )
        new = tokens / sequences
        found = {}
        for reach in self._reaches:
            looks = self._of_reach(reach)
            time_s = np.zeros_like(tokens)
            for look in looks:
                time_s += look.layers * self._prefill_s(look, sequences, new, cached)
            pairs = sequences * _pairs(looks[0], new, cached)
            found[reach] = _linear_prices(
                np.column_stack([pairs, tokens, np.ones_like(tokens)]), time_s
            )
        return found

    def _prefill_s(
        self,
        look: Look,
        sequences: NDArray[np.float64],
        new: NDArray[np.float64],
        cached: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Seconds of one layer's prefill attention."""
        in_part = look.tokens > 0 or look.every > 1
        if look.kind == "indexer" or (look.kind == "latent" and in_part):
            pairs = sequences * _pairs(look, new, cached)
            return pairs * look.pair_flop / self._flop_per_s(look)
        head_dim, kv_heads = look.key_dim, look.kv_heads
        if look.kind == "latent":
            # A prompt's latent vectors are multiplied out into keys and values of all heads.
            head_dim, kv_heads = look.expanded_dim, look.heads
        window = np.inf
        if look.tokens:
            window = (look.tokens + 1) / 2 if look.chunked else float(look.tokens)
        time_s = self.operators.prefill.predict(
            sequences, new, cached, look.heads, kv_heads, head_dim, window
        )
        return time_s / look.every

    @cached_property
    def _decode(self) -> dict[tuple[int, bool], Prices]:
        """By reach, seconds per KV token read, sequence and step."""
        counts = [count for count in DECODE_SEQUENCES if count <= max(self.max_num_seqs, 4)]
        sequences, context = (
            grid.ravel().astype(np.float64) for grid in np.meshgrid(counts, DECODE_CONTEXTS)
        )
        # Steps that an engine with a full KV cache runs; a nearly empty one costs its launches.
        wanted = (sequences * context >= LEAST_DECODE_KV_TOKENS) | (sequences == 1)
        sequences, context = sequences[wanted], context[wanted]
        found = {}
        for reach in self._reaches:
            looks = self._of_reach(reach)
            time_s = np.zeros_like(context)
            for look in looks:
                time_s += self._decode_s(look, sequences, context)
            read, ones = sequences * looks[0].seen(context), np.ones_like(sequences)
            if reach[0]:
                # A window is mostly full: what is paid for a sequence is paid for its window.
                price_s, step_s = _linear_prices(np.column_stack([read, ones]), time_s)
                found[reach] = np.array([price_s, 0.0, step_s])
            else:
                found[reach] = _linear_prices(np.column_stack([read, sequences, ones]), time_s)
        return found

    def _decode_s(
        self, look: Look, sequences: NDArray[np.float64], context: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Seconds of decode attention in all layers that look so."""
        seen = look.seen(context)
        if look.tokens and not look.chunked and look.kind == "heads":
            seen = np.minimum(context, look.tokens + WINDOW_EDGE)
        kv_heads, head_dim = look.kv_heads, float(look.key_dim)
        if look.kind == "latent":
            # Keys and values are one latent vector for all heads: half the bytes of two.
            head_dim = look.read_bytes * look.every / (self.operators.decode.kv_bits / 4.0)
        elif look.kind == "indexer":
            read_s = look.read_bytes * sequences * seen / self.gpu.bandwidth_bytes_per_s
            score_s = look.pair_flop * sequences * seen / self._flop_per_s(look)
            return look.layers * np.hypot(read_s, score_s)
        seen = np.maximum(1.0, seen / look.every)
        time_s = look.layers * self.operators.decode.predict(
            sequences, seen, look.heads, kv_heads, head_dim
        )
        if look.kind == "latent":
            flop = 2.0 * (look.value_dim + look.key_dim) * look.heads * look.layers
            time_s = np.hypot(time_s, flop * (sequences * seen) / self._flop_per_s(look))
        return time_s

    def _flop_per_s(self, look: Look) -> float:
        """FLOP per second of products that no table of attention kernels has."""
        if look.kind == "indexer":
            return INDEXER_FLOP_SHARE * self.gpu.peak_flop_per_s(8.0)
        return LATENT_FLOP_SHARE * self.gpu.flop_per_s

    @cached_property
    def _scan(self) -> Prices:
        """Of recurrent layers, seconds per new prompt token and per step with any; float64 [2]."""
        if not self.model.states:
            return np.zeros(2)
        tokens, sequences = (
            grid.ravel().astype(np.float64)
            for grid in np.meshgrid(PREFILL_TOKENS, PREFILL_SEQUENCES)
        )
        time_s = np.zeros_like(tokens)
        for state, layers in self.model.states.items():
            layer = recurrence.recurrence_of(state, self.tp)
            time_s += layers * recurrence.prefill_s(self.gpu, layer, sequences, tokens / sequences)
        return _linear_prices(np.column_stack([tokens, np.ones_like(tokens)]), time_s)

    @cached_property
    def _states(self) -> tuple[float, float]:
        """Of recurrent layers, seconds per decoding sequence and per step with any."""
        sequence_s = step_s = 0.0
        for state, layers in self.model.states.items():
            layer = recurrence.recurrence_of(state, self.tp)
            each_s, any_s = recurrence.decode_s(self.gpu, layer)
            sequence_s += layers * each_s
            step_s += layers * any_s
        return sequence_s, step_s


def _pairs(
    look: Look, new: NDArray[np.float64], cached: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(Query, key) pairs of new tokens of one sequence behind cached ones."""
    if not look.tokens:
        return new * cached + new * (new + 1.0) / 2.0
    before, after = (look.seen_up_to(context) for context in (cached, cached + new))
    return np.asarray(after - before)


def _linear_prices(terms: NDArray[np.float64], time_s: NDArray[np.float64]) -> Prices:
    """Non-negative prices of the terms, with the least squared relative error."""
    from scipy.optimize import nnls  # slow to import

    relative = terms / time_s[:, None]
    scale = relative.max(axis=0)
    return np.asarray(nnls(relative / scale, np.ones(len(time_s)))[0] / scale, np.float64)
