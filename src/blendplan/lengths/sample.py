"""A sample of the requests, chosen so that what it tells of the rest is known."""

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.arguments import number, whole
from blendplan.errors import BlendplanError
from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.strata import Strata, strata_of
from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

# Fewer say too little of outputs that differ a thousandfold.
LEAST_SAMPLES = 200
# Fewest samples of a kind of requests, as far as it has them.
_LEAST_OF_A_KIND = 2
# Outputs spread no further than up to their cap. The root of it, since most stay well below; a
# request without one, or with a larger one, counts as one with this.
_LARGEST_CAP = 4096


def choose_sample(
    tree: PrefixTree,
    requests: Requests,
    fraction: float = 0.01,
    seed: int = 0,
    strata: Strata | None = None,
) -> NDArray[np.int64]:
    """Choose requests to run first, each with a known probability.

    Requests are parted into kinds by words, length, cap and sharing, see `strata_of`. Each kind
    gets a number of samples by `allocation`, which samples a rare kind, such as may well have the
    longest outputs, more densely than those that are like many others, and one with small caps
    less.
    Within a kind the sampling is systematic, in depth-first order of the prefix tree from a random
    start: each of its requests is chosen with the same probability, and every subtree gets its
    share, give or take one. `sample_weights` says for how many requests each of the chosen stands.

    Requests whose output length is certain beforehand are not chosen.

    Args:
        tree: of the requests, before any split.
        requests: n requests.
        fraction: share of the requests whose output length is unknown, over 0 to 1; where that is
            fewer than 200, 200 or all of them are chosen.
        seed: of the random starts.
        strata: of the requests, where they are at hand.

    Returns:
        Indices of the chosen requests, rising; int64 [k].

    Raises:
        BlendplanError: ``fraction`` is out of range, or all output lengths are known.
    """
    try:
        fraction = number("fraction", fraction, 0.0, 1.0, above_least=True)
    except BlendplanError as error:
        raise BlendplanError(
            f"the sampled fraction must be over 0 and at most 1: {error}"
        ) from None
    seed = whole("seed", seed)
    unknown = tree.order[stated_lengths(requests)[tree.order] < 0]
    if not len(unknown):
        raise BlendplanError("every request states its output_tokens; there is nothing to sample")
    count = max(LEAST_SAMPLES, round(fraction * len(unknown)))
    if count >= len(unknown):
        return np.sort(unknown)
    strata = strata_of(requests, tree) if strata is None else strata
    kind = strata.number[unknown]
    in_kinds = unknown[np.argsort(kind, kind="stable")]
    sizes = np.bincount(kind, minlength=len(strata))
    cap = requests.max_tokens[unknown]
    spread = np.sqrt(np.where(cap < 0, _LARGEST_CAP, np.minimum(cap, _LARGEST_CAP)))
    spreads = np.bincount(kind, spread, len(strata)).astype(np.float64)
    samples = allocation(sizes, spreads, strata.cut, count)
    starts = np.random.default_rng(seed).random(len(sizes))
    which = np.repeat(np.arange(len(sizes)), samples)
    place = np.arange(count) - np.repeat(np.cumsum(samples) - samples, samples)
    within = ((place + starts[which]) * sizes[which] / samples[which]).astype(np.int64)
    begin = np.cumsum(sizes) - sizes
    return np.sort(in_kinds[begin[which] + np.minimum(within, sizes[which] - 1)])


def allocation(
    sizes: NDArray[np.int64], spreads: NDArray[np.float64], cut: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Samples of each kind: enough of the common ones for a total, more of the rare ones.

    Half of the samples go to kinds in proportion to their spread, so that none is seen less than
    half as often as it would be for the sake of the total alone. The other half is for rare kinds.
    Kinds were parted two by two, the least alike first; the samples of both sides of a cut are
    divided in proportion to the roots of their spreads: one request in a hundred that is parted
    from all the others at once gets a tenth of this half, while kinds that a common one was parted
    into late share its samples. Measured on mixtures by benchmarks/sampling.py.

    Args:
        sizes: requests of each of h kinds; int64 [h].
        spreads: how far the outputs of their requests may spread, summed; float64 [h].
        cut: when neighbours were parted, see `Strata`; int64 [h - 1].
        count: how many samples there are, at most the sum of the sizes.

    Returns:
        Samples of each kind, summing to ``count``; int64 [h]. A kind has at least 2 or all of its
        requests, or as many as there are for each where that is less, and at most all.
    """
    shares = 0.5 * spreads / spreads.sum() + 0.5 * _shares(spreads, cut)
    each = count // max(1, int(np.count_nonzero(sizes)))
    lowest = np.minimum(sizes, min(_LEAST_OF_A_KIND, each))
    # The rate at which the shares, cut to what is allowed, sum to the count.
    low, high = 0.0, float((sizes[sizes > 0] / shares[sizes > 0]).max())
    for _ in range(100):
        rate = 0.5 * (low + high)
        if np.clip(rate * shares, lowest, sizes).sum() < count:
            low = rate
        else:
            high = rate
    exact = np.clip(low * shares, lowest, sizes)
    samples = np.floor(exact).astype(np.int64)
    # What rounding down has left goes where most was cut off.
    by_rest = np.argsort(samples - exact, kind="stable")
    by_rest = by_rest[samples[by_rest] < sizes[by_rest]]
    samples[by_rest[: count - samples.sum()]] += 1
    return samples


def _shares(spreads: NDArray[np.float64], cut: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each kind where the roots of both sides count at each cut; float64 [h]."""
    shares = np.ones(len(spreads))
    before = np.concatenate([[0.0], np.cumsum(spreads)])
    stretches = [(0, len(spreads))]
    while stretches:
        start, end = stretches.pop()
        if end - start < 2:
            continue
        middle = start + int(np.argmin(cut[start : end - 1])) + 1
        first = np.sqrt(before[middle] - before[start])
        second = np.sqrt(before[end] - before[middle])
        if first + second > 0.0:
            shares[start:middle] *= first / (first + second)
            shares[middle:end] *= second / (first + second)
        stretches += [(start, middle), (middle, end)]
    return shares
