"""`StepTable`: the price of one engine step, in a form that numeric loops can read."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.kernels.kernel import kernel


class StepTable(NamedTuple):
    """What a step costs, given what is in it. Every cost model compiles to this.

    Attributes:
        linear_s: seconds of all linear layers and of tensor-parallel communication, indexed by the
            tokens in the step; float64 [max_num_batched_tokens + 1], entry 0 is 0.
        head_s: seconds of the output head, indexed by the sequences that sample in the step;
            float64 [max_num_seqs + 1], entry 0 is 0.
        prefill_attention: seconds per (query, key) token pair, per new prefill token, and per step
            with any prefill; float64 [3].
        decode_attention: seconds per KV token read, per decoding sequence, and per step with any
            decode; float64 [3].
        overlap: the overlap exponent q; 1 is no overlap, infinity is perfect overlap.
        step_s: fixed overhead per step in seconds.
        state_s: seconds per decoding sequence for states that do not grow with its context, read
            and written by recurrent layers.
        reach: how far back attention looks: what counts as a pair and as a KV token read.
    """

    linear_s: NDArray[np.float64]
    head_s: NDArray[np.float64]
    prefill_attention: NDArray[np.float64]
    decode_attention: NDArray[np.float64]
    overlap: float
    step_s: float
    state_s: float = 0.0
    reach: Reach = ALL_TOKENS


@kernel
def step_times(
    table: StepTable,
    prefill_tokens: int,
    prefill_pairs: float,
    decode_sequences: int,
    kv_tokens: float,
    sampling_sequences: int,
) -> tuple[float, float, float]:
    """Compute time, memory time and step time in seconds of one step.

    Args:
        table: prices.
        prefill_tokens: new prompt tokens computed in the step.
        prefill_pairs: (query, key) pairs of their causal attention, as `pairs_of` counts them: for
            n new tokens after c cached ones, n c + n (n + 1) / 2 where every layer sees all.
        decode_sequences: sequences that decode one token each.
        kv_tokens: KV-cache tokens that those read, as `tokens_read` counts them.
        sampling_sequences: sequences whose next token is sampled: all decoding ones and the
            prefills that complete.
    """
    tokens = prefill_tokens + decode_sequences
    if tokens == 0:
        return 0.0, 0.0, 0.0
    compute_s = table.linear_s[tokens] + table.head_s[sampling_sequences]
    if prefill_tokens > 0:
        pair_s, token_s, fixed_s = table.prefill_attention
        compute_s += pair_s * prefill_pairs + token_s * prefill_tokens + fixed_s
    memory_s = 0.0
    if decode_sequences > 0:
        read_s, sequence_s, fixed_s = table.decode_attention
        memory_s = read_s * kv_tokens + (sequence_s + table.state_s) * decode_sequences + fixed_s
    return compute_s, memory_s, overlapped(compute_s, memory_s, table.overlap) + table.step_s


@kernel
def overlapped(compute_s: float, memory_s: float, overlap: float) -> float:
    """Time in seconds of two kinds of work under overlap exponent q: their q-norm."""
    longer = max(compute_s, memory_s)
    shorter = min(compute_s, memory_s)
    if overlap == 1.0:
        return longer + shorter
    if shorter == 0.0 or overlap == np.inf:
        return longer
    ratio = shorter / longer
    if overlap == 2.0:
        return longer * math.sqrt(1.0 + ratio * ratio)
    return longer * math.pow(1.0 + math.pow(ratio, overlap), 1.0 / overlap)


@kernel
def price_steps(
    table: StepTable,
    prefill_tokens: NDArray[np.int64],
    prefill_pairs: NDArray[np.float64],
    decode_sequences: NDArray[np.int64],
    kv_tokens: NDArray[np.float64],
    sampling_sequences: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """`step_times` of a whole array of steps.

    Args:
        table: prices.
        prefill_tokens, prefill_pairs, decode_sequences, kv_tokens, sampling_sequences: what is in
            each step, as in `step_times`; [steps] each.

    Returns:
        Compute time, memory time and step time in seconds; float64 [steps] each.
    """
    steps = len(prefill_tokens)
    compute_s = np.empty(steps)
    memory_s = np.empty(steps)
    step_s = np.empty(steps)
    for step in range(steps):
        compute_s[step], memory_s[step], step_s[step] = step_times(
            table,
            prefill_tokens[step],
            prefill_pairs[step],
            decode_sequences[step],
            kv_tokens[step],
            sampling_sequences[step],
        )
    return compute_s, memory_s, step_s


@kernel
def lower_hull(price_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices from 1 on of the lower convex hull of the points (n, price_s[n])."""
    corners = np.empty(len(price_s) - 1, np.int64)
    count = 0
    for n in range(1, len(price_s)):
        while count >= 2:
            a, b = corners[count - 2], corners[count - 1]
            rise, run = price_s[b] - price_s[a], b - a
            if rise * (n - a) < (price_s[n] - price_s[a]) * run:
                break
            count -= 1
        corners[count] = n
        count += 1
    return corners[:count]
