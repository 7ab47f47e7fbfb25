"""Lower bound on the makespan of any schedule: the "optimal" that plans are compared with."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blendplan.cost.reach import ALL_TOKENS, Reach, pairs_of, pairs_up_to, reads_up_to
from blendplan.cost.step import StepTable, lower_hull, overlapped
from blendplan.errors import BlendplanError
from blendplan.policy.holding import GROWS_BY_ONE, Holding
from blendplan.tree.prefix_tree import PrefixTree

_THIRDS = 100  # (2 / 3)^100 of an interval is nothing


@dataclass(frozen=True)
class LeastPrefill:
    """Prefill work that no schedule avoids, when every shareable prefix is computed once.

    Attributes:
        tokens: prompt tokens to compute.
        pairs: (query, key) token pairs of their causal attention.
        private_tokens: per request, prompt tokens that no other request shares; int64 [n].
    """

    tokens: int
    pairs: float
    private_tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Bound:
    """No schedule is faster than this.

    Attributes:
        makespan_s: the bound.
        steps: least number of steps.
        compute_s: least compute time.
        memory_s: least time of decode attention.
    """

    makespan_s: float
    steps: int
    compute_s: float
    memory_s: float


@dataclass(frozen=True)
class LeastWork:
    """What no schedule of a request set avoids, as sums; see `makespan_bound`.

    Those of two sets add up where no prompt of one shares a prefix with a prompt of the other.

    Attributes:
        prefill_tokens, prefill_pairs: as of `LeastPrefill`.
        outputs, decodes: output tokens of all requests, and those that a decode step makes.
        longest: tokens of the longest output.
        resident: least sum over requests and their samplings of the slots that are not shared.
        preemptions: preemptions of the run to certify.
        reads, reading_decodes: KV tokens read by all decodes and how many these are, without the
            largest for each preemption.
    """

    prefill_tokens: int
    prefill_pairs: float
    outputs: int
    decodes: int
    longest: int
    resident: float
    preemptions: int
    reads: float
    reading_decodes: int


def least_prefill(tree: PrefixTree, reach: Reach = ALL_TOKENS) -> LeastPrefill:
    """Least prefill work of a request set, from its prefix tree as built (before any split).

    Each token of the tree is computed at least once, and each request computes at least its last
    prompt token itself, because a prefix hit covers at most prompt - 1 tokens. A token at position
    x (from 1) makes x pairs where attention looks at everything, and as many as its reach says
    elsewhere.
    """
    depth = tree.depth.astype(np.int64)
    above = np.where(tree.parent >= 0, depth[np.maximum(tree.parent, 0)], 0)
    ending = np.bincount(tree.node_of, minlength=tree.node_count).astype(np.int64)
    again = np.maximum(ending - 1, 0)
    tokens = int((depth - above).sum() + again.sum())
    of_depth = pairs_up_to(reach, depth)
    of_last = of_depth - pairs_up_to(reach, depth - 1)
    pairs = (of_depth - pairs_up_to(reach, above) + again * of_last).sum()
    alone = (tree.request_end - tree.request_start) == 1
    private = np.where(alone, depth - above, 0)[tree.node_of]
    return LeastPrefill(tokens, float(pairs), private)


def makespan_bound(
    table: StepTable,
    *,
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    prefill: LeastPrefill,
    kv_capacity_tokens: int,
    preemptions: int = 0,
    holding: Holding = GROWS_BY_ONE,
) -> Bound:
    """Lower bound on the makespan of any schedule of n requests under the prices of a table.

    What a schedule is: a request with p prompt and d output tokens is prefilled in one or more
    steps, of which the last samples its first output token, and takes d - 1 decode steps, of which
    the j-th reads p + j tokens of KV cache and holds them; where layers keep a window, a chunk or a
    state, it reads and holds what they do. A step computes at most B tokens and samples at most Q
    sequences (the limits of the table), and what its sequences hold, shared tokens counted once,
    fits the capacity M. With c_t and m_t the compute and memory time of step t, Minkowski's
    inequality gives for any q >= 1

        T = sum_t (c_t^q + m_t^q)^(1/q) + S t_step >= (C^q + A^q)^(1/q) + S t_step

    with C, A the sums, so a lower bound of each of C, A and S gives one of T.

    - S. One output token per request and step: S >= max d, and S >= sum d / Q, and
      S >= N / B for N the tokens to compute: least prefill plus sum (d - 1). Private tokens are
      held once per request: when request i samples output j + 1 (j from 0), its u_i unshared
      prompt tokens and j others are resident, so S >= sum_i sum_j (u_i + j) / M. A window of W
      tokens keeps the latest min(W, u_i + j) of these, and a state is each request's own; both add
      to the sum what they take. All but N / B also bound the steps that sample.
    - C. Let e be the largest convex function under the prices of linear layers. By Jensen's
      inequality S steps of N tokens in all cost S e(N / S) or more. That falls in S up to N / n*
      with n* the tokens of the best price per token, and grows after, so its least value is at
      max(least S, N / n*). The output head likewise, over steps that sample. Prefill attention is
      linear in pairs, tokens and steps.
    - C and S together: what few steps save of S t_step, they cost in S e(N / S), so the linear
      layers count with as many steps between both extremes as make T least, which is convex in S.
    - A. Linear in KV tokens read, decodes (their states with them), and steps that decode.

    A preempted request comes back by a prefill that also samples its next token: one decode read
    less, which a run with preemptions may profit from. To certify such a run, pass how many it
    had: the largest reads are taken out, one for each.

    Args:
        table: prices.
        prompt_tokens, output_tokens: p and d >= 1 of each request; int [n].
        prefill: from `least_prefill`.
        kv_capacity_tokens: M, in slots; see `Holding`.
        preemptions: preemptions of the run to certify.
        holding: what a request holds of the KV cache.

    Raises:
        BlendplanError: columns of different lengths, or a capacity that is not positive.
    """
    p = np.asarray(prompt_tokens, np.int64)
    d = np.asarray(output_tokens, np.int64)
    if p.shape != d.shape or p.shape != prefill.private_tokens.shape:
        raise BlendplanError(
            f"bound: {len(p)} prompt lengths, {len(d)} output lengths and "
            f"{len(prefill.private_tokens)} private lengths; expected as many of each"
        )
    if kv_capacity_tokens <= 0:
        raise BlendplanError(f"bound: KV capacity {kv_capacity_tokens}; it must be positive")
    if len(p) == 0:
        return Bound(0.0, 0, 0.0, 0.0)
    work = least_work(p, d, prefill, preemptions, reach=table.reach, holding=holding)
    return bound_of(table, work, kv_capacity_tokens)


def least_work(
    p: NDArray[np.int64],
    d: NDArray[np.int64],
    prefill: LeastPrefill,
    preemptions: int = 0,
    *,
    reach: Reach = ALL_TOKENS,
    holding: Holding = GROWS_BY_ONE,
) -> LeastWork:
    """The sums that `makespan_bound` needs of n >= 1 requests. Args: as there; int64 [n]."""
    reads, reading_decodes = _decode_reads(reach, p, d, preemptions)
    return LeastWork(
        prefill_tokens=prefill.tokens,
        prefill_pairs=prefill.pairs,
        outputs=int(d.sum()),
        decodes=int((d - 1).sum()),
        longest=int(d.max()),
        resident=_resident_slots(holding, p, prefill.private_tokens, d),
        preemptions=preemptions,
        reads=reads,
        reading_decodes=reading_decodes,
    )


def bound_of(table: StepTable, work: LeastWork, kv_capacity_tokens: int) -> Bound:
    """The bound of `makespan_bound` from the sums of the requests."""
    most_tokens, most_sequences = len(table.linear_s) - 1, len(table.head_s) - 1
    tokens = work.prefill_tokens + work.decodes
    sampling_steps = max(
        work.longest,
        _ceil(work.outputs / most_sequences),
        _ceil(work.resident / kv_capacity_tokens),
    )
    steps = max(sampling_steps, _ceil(tokens / most_tokens))

    pair_s, token_s, prefill_step_s = table.prefill_attention
    linear = _Spread(table.linear_s, tokens, steps)
    compute_s = linear.least_s
    compute_s += _Spread(table.head_s, work.outputs, sampling_steps).least_s
    compute_s += pair_s * work.prefill_pairs + token_s * work.prefill_tokens
    compute_s += prefill_step_s * _ceil(work.prefill_tokens / most_tokens)

    read_s, sequence_s, decode_step_s = table.decode_attention
    decode_steps = max(
        work.longest - 1 - work.preemptions, _ceil(work.reading_decodes / most_sequences), 0
    )
    memory_s = read_s * work.reads + (sequence_s + table.state_s) * work.reading_decodes
    memory_s += decode_step_s * decode_steps

    def with_steps(number: float) -> float:
        busy_s = compute_s - linear.least_s + linear.seconds(number)
        return overlapped(busy_s, memory_s, table.overlap) + number * table.step_s

    makespan_s = overlapped(compute_s, memory_s, table.overlap)
    if table.step_s:
        makespan_s = _least(with_steps, float(steps), linear.steps)
    return Bound(float(makespan_s), steps, float(compute_s), float(memory_s))


def bound_of_replicas(
    table: StepTable,
    work: LeastWork,
    longest_prompt: int,
    kv_capacity_tokens: int,
    replicas: int,
    holding: Holding = GROWS_BY_ONE,
) -> Bound:
    """Lower bound on the makespan of several replicas, however the requests are divided.

    One engine could run the parts one after the other, in at most replicas times the makespan. And
    the request with the longest output takes its time wherever it runs.

    Args:
        table: prices.
        work: of all requests.
        longest_prompt: prompt tokens of the request with the longest output.
        kv_capacity_tokens: of each replica.
        replicas: how many there are.
        holding: what a request holds of the KV cache.
    """
    last_pairs = pairs_of(table.reach, longest_prompt - 1, 1)
    one = bound_of(table, work, kv_capacity_tokens)
    alone = makespan_bound(
        table,
        prompt_tokens=[longest_prompt],
        output_tokens=[work.longest],
        # The rest of its prompt may be another request's.
        prefill=LeastPrefill(1, last_pairs, np.zeros(1, np.int64)),
        kv_capacity_tokens=kv_capacity_tokens,
        preemptions=work.preemptions,
        holding=holding,
    )
    shared = Bound(
        one.makespan_s / replicas,
        -(-one.steps // replicas),
        one.compute_s / replicas,
        one.memory_s / replicas,
    )
    return max(shared, alone, key=lambda bound: bound.makespan_s)


def _ceil(value: float) -> int:
    # A hair less, so that rounding in the division never adds a step.
    return math.ceil(value * (1.0 - 1e-12))


def _resident_slots(
    holding: Holding,
    p: NDArray[np.int64],
    private: NDArray[np.int64],
    d: NDArray[np.int64],
) -> float:
    """Least sum over requests and their samplings of the slots that are not shared with others."""
    outputs = d.astype(np.float64)
    slots = holding.growth * (private * outputs + outputs * (outputs - 1.0) / 2.0)
    for tokens, each in holding.windows:
        slots += each * _grown(int(tokens), False, np.maximum(private - 1, 0), private + d - 1)
    for tokens, each in holding.chunks:
        # Before its own tokens fill a chunk, a request may hold those of a shared prefix.
        shared = np.where(private < p, np.minimum(d, np.maximum(0, int(tokens) - private)), 0)
        slots += each * _grown(int(tokens), True, p + shared - 1, p + d - 1)
    return float((slots + holding.constant * outputs).sum())


def _grown(
    tokens: int, chunked: bool, before: NDArray[np.int64], after: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sum of what layers of that reach look at, over contexts from ``before`` + 1 to ``after``."""
    kind = Reach(np.array([tokens]), np.array([chunked]), np.ones(1), np.ones(1))
    return reads_up_to(kind, after) - reads_up_to(kind, before)


def _decode_reads(
    reach: Reach, p: NDArray[np.int64], d: NDArray[np.int64], preemptions: int
) -> tuple[float, int]:
    """KV tokens read by all decodes and their number, without the ``preemptions`` largest."""
    reads = float((reads_up_to(reach, p + d - 1) - reads_up_to(reach, p)).sum())
    count = int((d - 1).sum())
    if preemptions <= 0:
        return reads, count
    if preemptions >= count:
        return 0.0, 0
    # Request i reads the contexts p + 1 .. p + d - 1 once: count the decodes of each context.
    decodes = np.zeros(int((p + d).max()) + 1, np.int64)
    np.add.at(decodes, p + 1, 1)
    np.add.at(decodes, p + d, -1)
    decodes = np.cumsum(decodes)
    read = np.diff(reads_up_to(reach, np.arange(len(decodes))), prepend=0.0)
    largest = np.argsort(-read, kind="stable")
    taken = np.minimum(np.cumsum(decodes[largest]), preemptions)
    return reads - float((np.diff(taken, prepend=0) * read[largest]).sum()), count - preemptions


class _Spread:
    """The least sum of ``price_s[n_t]`` over some steps of n_t >= 1 with the sum ``total``.

    The lower convex hull of the prices bounds them from below; see `makespan_bound`.
    """

    def __init__(self, price_s: NDArray[np.float64], total: int, least_steps: int) -> None:
        self._corners = lower_hull(price_s)
        self._hull = price_s[self._corners]
        self._total = total
        best = self._corners[np.argmin(self._hull / self._corners)]
        self.steps = max(float(least_steps), total / float(best))
        """Steps, at least ``least_steps``, with which it is least; it falls up to them."""

    @property
    def least_s(self) -> float:
        """The least sum."""
        return self.seconds(self.steps)

    def seconds(self, steps: float) -> float:
        """The least sum of so many steps; convex in them."""
        return steps * float(np.interp(self._total / steps, self._corners, self._hull))


def _least(of: Callable[[float], float], low: float, high: float) -> float:
    """The least value of a convex function between two points."""
    for _ in range(_THIRDS):
        first, second = low + (high - low) / 3.0, high - (high - low) / 3.0
        if of(first) <= of(second):
            high = second
        else:
            low = first
    return min(of(low), of(high))
