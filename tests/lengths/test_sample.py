"""Which requests are chosen for a sample, and what estimates from it are worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.sample import allocation, choose_sample
from blendplan.lengths.strata import Strata, strata_of
from blendplan.lengths.totals import expected_error, total_interval
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree
from tests.oracles.tree import PROMPTS

SEEDS = 200


class Mixture:
    """Exams with shared heads and short answers, chats without, and a few long reports.

    Attributes:
        output: true lengths, which the requests do not state; int64 [n].
        kind: 0 exam, 1 chat, 2 report; int64 [n].
    """

    def __init__(self, exams: int, chats: int, reports: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)

        def words(count: int) -> list[int]:
            return random.integers(1000, 10**6, count).tolist()

        heads = [words(60) for _ in range(8)]
        prompts = [heads[i % 8] + words(10) + [5, 6] for i in range(exams)]
        prompts += [[*words(int(random.integers(5, 60))), 7] for _ in range(chats)]
        prompts += [[8, 9, *words(30)] for _ in range(reports)]
        counts = np.array([exams, chats, reports])
        output = random.lognormal(
            np.repeat([1.0, 5.0, 8.0], counts), np.repeat([0.5, 1.0, 0.7], counts)
        )
        shuffled = random.permutation(len(prompts))
        self.requests: Requests = requests_from_lists([prompts[i] for i in shuffled])
        self.tree: PrefixTree = build_tree(self.requests)
        self.strata: Strata = strata_of(self.requests, self.tree)
        self.output: NDArray[np.int64] = np.ceil(output).astype(np.int64)[shuffled]
        self.kind: NDArray[np.int64] = np.repeat([0, 1, 2], counts)[shuffled]

    def sample(self, seed: int, fraction: float = 0.01) -> NDArray[np.int64]:
        return choose_sample(self.tree, self.requests, fraction, seed, self.strata)

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return sample_weights(self.requests, self.tree, rows, self.strata)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return Mixture(exams=1500, chats=1400, reports=100)


# Choosing


@settings(max_examples=60)
@given(PROMPTS, st.floats(0.01, 1.0), st.integers(0, 99), st.data())
def test_all_are_chosen_where_they_are_few(
    prompts: list[list[int]], fraction: float, seed: int, data: st.DataObject
) -> None:
    known = data.draw(
        st.lists(st.sampled_from([None, None, 5]), min_size=len(prompts), max_size=len(prompts))
    )
    known[data.draw(st.integers(0, len(prompts) - 1))] = None
    requests = requests_from_lists(prompts, output_tokens=known)
    rows = choose_sample(build_tree(requests), requests, fraction, seed)
    assert rows.tolist() == [row for row, length in enumerate(known) if length is None]


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.001, 200), (0.01, 200), (0.1, 300), (0.5, 1500), (1.0, 3000)]
)
def test_at_least_two_hundred_each_once(mixture: Mixture, fraction: float, count: int) -> None:
    rows = mixture.sample(3, fraction)
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == mixture.sample(3, fraction).tolist()
    if count < 3000:
        assert rows.tolist() != mixture.sample(4, fraction).tolist()
    # Strata that are made again are the same.
    assert rows.tolist() == choose_sample(mixture.tree, mixture.requests, fraction, 3).tolist()


def test_known_lengths_are_neither_chosen_nor_stood_for(mixture: Mixture) -> None:
    known = np.where(mixture.kind == 1, mixture.output, -1)
    prompts = [mixture.requests.prompt(row) for row in range(len(known))]
    stated = [None if length < 0 else int(length) for length in known]
    requests = requests_from_lists(prompts, output_tokens=stated)
    rows = choose_sample(mixture.tree, requests)
    assert len(rows) == 200
    assert (mixture.kind[rows] != 1).all()
    assert sample_weights(requests, mixture.tree, rows).sum() == pytest.approx(1600)
    total = total_interval(requests, mixture.tree, rows, np.full(200, 7, np.int32))
    assert total.tokens == pytest.approx(1600 * 7 + mixture.output[mixture.kind == 1].sum())


def test_subtrees_within_a_kind_get_their_share(mixture: Mixture) -> None:
    tree, number = mixture.tree, mixture.strata.number
    sampled = np.zeros(len(tree), dtype=np.bool_)
    sampled[mixture.sample(1, 0.2)] = True
    rate = np.bincount(number, sampled) / np.bincount(number)
    for start, end in zip(tree.request_start, tree.request_end, strict=True):
        below = tree.order[start:end]
        size = np.bincount(number[below], minlength=len(rate))
        seen = np.bincount(number[below], sampled[below], minlength=len(rate))
        # The requests of a subtree follow each other also among those of a kind.
        assert (np.abs(seen - size * rate) < 1 + 1e-9).all()


def slow_shares(spreads: list[float], cut: list[int]) -> list[float]:
    """Each side of the earliest cut gets its part by the root, then so within each side."""
    if len(spreads) == 1:
        return [1.0]
    at = cut.index(min(cut)) + 1
    parts = [(spreads[:at], cut[: at - 1]), (spreads[at:], cut[at:])]
    roots = [sum(part) ** 0.5 for part, _ in parts]
    return [
        root / sum(roots) * share
        for root, (part, cuts) in zip(roots, parts, strict=True)
        for share in slow_shares(part, cuts)
    ]


KINDS = st.lists(st.tuples(st.integers(1, 3000), st.floats(1.0, 64.0)), min_size=1, max_size=40)


@given(KINDS, st.data())
def test_allocation_gives_each_kind_some_and_none_too_many(
    kinds: list[tuple[int, float]], data: st.DataObject
) -> None:
    sizes = [size for size, _ in kinds]
    spreads = [size * spread for size, spread in kinds]
    cut = data.draw(st.permutations(range(len(sizes) - 1)))
    count = data.draw(st.integers(len(sizes), sum(sizes)))
    samples = allocation(np.array(sizes), np.array(spreads), np.array(cut, dtype=np.int64), count)
    assert samples.sum() == count
    least = min(2, count // len(sizes))
    shares = [
        0.5 * spread / sum(spreads) + 0.5 * share
        for spread, share in zip(spreads, slow_shares(spreads, list(cut)), strict=True)
    ]
    free = [
        (sampled, share)
        for size, sampled, share in zip(sizes, samples, shares, strict=True)
        if min(size, least) < sampled < size
    ]
    for size, sampled in zip(sizes, samples, strict=True):
        assert min(size, least) <= sampled <= size
    # Kinds that are held at neither end have samples in proportion to their shares, but for one
    # that rounding may add or take.
    for sampled, share in free:
        for other, other_share in free:
            assert (sampled - 1) / share <= (other + 1) / other_share * (1 + 1e-9)


def test_a_rare_kind_that_is_like_no_other_is_sampled_densely() -> None:
    """One in a hundred; the rest is one kind in effect, cut into ten."""
    sizes = np.array([100, *[990] * 10])
    samples = allocation(sizes, 64.0 * sizes, np.arange(10), 400)
    assert samples[0] == round(200 * 0.01 + 200 * 1 / (1 + 99**0.5))
    late = allocation(sizes, 64.0 * sizes, np.array([9, *range(9)]), 400)
    assert late[0] < samples[0]


def test_kinds_with_small_caps_are_sampled_less(mixture: Mixture) -> None:
    caps = [8 if kind == 0 else 4096 for kind in mixture.kind]
    prompts = [mixture.requests.prompt(row) for row in range(len(caps))]
    requests = requests_from_lists(prompts, max_tokens=caps)
    rows = choose_sample(mixture.tree, requests)
    free = np.count_nonzero(mixture.kind[mixture.sample(0)] == 0)
    assert 2 <= np.count_nonzero(mixture.kind[rows] == 0) < free / 2


def test_kinds_without_a_request_get_no_sample() -> None:
    sizes = np.array([0, 30, 0, 30, 0])
    samples = allocation(sizes, 1.0 * sizes, np.array([1, 0, 3, 2]), 20)
    assert samples.tolist() == [0, 10, 0, 10, 0]


def test_nothing_is_sampled_where_every_length_is_known() -> None:
    requests = requests_from_lists([[1], [2, 3]], output_tokens=[5, 5])
    with pytest.raises(BlendplanError, match="nothing to sample"):
        choose_sample(build_tree(requests), requests, 0.5, 0)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_fraction_is_checked(fraction: float) -> None:
    requests = requests_from_lists([[1]])
    with pytest.raises(BlendplanError, match="fraction must be over 0 and at most 1"):
        choose_sample(build_tree(requests), requests, fraction)


# Estimating


def test_every_request_is_chosen_as_often_as_its_weight_says(mixture: Mixture) -> None:
    chosen = np.zeros(len(mixture.output))
    promised = np.zeros(len(mixture.output))
    for seed in range(SEEDS):
        rows = mixture.sample(seed)
        chosen[rows] += 1
        promised[rows] = 1.0 / mixture.weights(rows)
    number = mixture.strata.number
    size = np.bincount(number)
    # Each kind gets the same number of samples whatever the seed.
    share = np.bincount(number, chosen) / size / SEEDS
    assert (share > 0).all()
    assert promised[promised > 0] == pytest.approx(share[number][promised > 0])
    # And all its requests have the same chance: the counts scatter as in independent draws or less.
    often = chosen / SEEDS
    error = np.sqrt(share * (1 - share) / SEEDS)[number]
    assert (np.abs(often - share[number]) <= 5 * error + 1e-12).all()


def test_estimates_are_without_bias(mixture: Mixture) -> None:
    """Of the total, of the rare long kind, and of how many requests there are of each kind."""
    truths = [mixture.output, mixture.output * (mixture.kind == 2), mixture.kind == 1]
    estimates = np.empty((SEEDS, len(truths)))
    for seed in range(SEEDS):
        rows = mixture.sample(seed)
        weights = mixture.weights(rows)
        estimates[seed] = [weights @ truth[rows] for truth in truths]
    bias = estimates.mean(axis=0) - [truth.sum() for truth in truths]
    error = estimates.std(axis=0) / np.sqrt(SEEDS)
    assert (np.abs(bias) <= 3 * error + 1e-6).all()


def test_the_rare_kind_is_seen_more_often_than_at_random(mixture: Mixture) -> None:
    """Weights undo that: its 100 of 3,000 are 7 of 200 at random."""
    seen = [np.count_nonzero(mixture.kind[mixture.sample(seed)] == 2) for seed in range(10)]
    assert min(seen) >= 8


@pytest.mark.parametrize("exams", [0, 1500])
def test_intervals_hold_the_truth_nine_times_in_ten(exams: int) -> None:
    """Or nearly: 80 to 99 % of 200 intervals.

    Outputs are log-normal, and one in thirty or in fifteen is twenty times as long; of those, a
    sample has about ten, and now and then none of the longest.
    """
    mixture = Mixture(exams, chats=1400, reports=100, seed=exams)
    truth = mixture.output.sum()
    held, relative = 0, []
    for seed in range(SEEDS):
        rows = mixture.sample(seed)
        total = total_interval(
            mixture.requests, mixture.tree, rows, mixture.output[rows], mixture.strata
        )
        assert total.low <= total.tokens <= total.high
        assert total.tokens == pytest.approx(mixture.weights(rows) @ mixture.output[rows])
        held += total.low <= truth <= total.high
        relative.append((total.high - total.low) / truth)
    assert 0.8 * SEEDS <= held <= 0.99 * SEEDS
    assert np.median(relative) < 0.8


def test_all_requests_leave_no_doubt(mixture: Mixture) -> None:
    rows = np.arange(len(mixture.output))
    total = total_interval(
        mixture.requests, mixture.tree, rows, mixture.output.astype(np.int32), mixture.strata
    )
    assert total.low == total.tokens == total.high == mixture.output.sum()
    assert total.mean == pytest.approx(mixture.output.mean())
    assert expected_error(mixture.weights(rows)) == 0.0


def test_one_result_is_an_estimate_with_much_doubt() -> None:
    requests = requests_from_lists([[i] for i in range(300)])
    tree = build_tree(requests)
    total = total_interval(requests, tree, np.array([4]), np.array([10], np.int32))
    assert total.tokens == 3000
    assert 10 <= total.low < 1500
    assert total.high > 6000


def test_equal_lengths_are_estimated_exactly(mixture: Mixture) -> None:
    rows = mixture.sample(0)
    total = total_interval(mixture.requests, mixture.tree, rows, np.full(200, 5), mixture.strata)
    assert total.tokens == pytest.approx(15_000)
    more = total_interval(
        mixture.requests, mixture.tree, mixture.sample(0, 0.5), np.full(1500, 5), mixture.strata
    )
    assert more.high - more.low < total.high - total.low


def test_expected_error_falls_with_the_sample(mixture: Mixture) -> None:
    errors = [
        expected_error(mixture.weights(mixture.sample(0, fraction))) for fraction in (0.1, 0.4)
    ]
    assert errors[0] == pytest.approx(1.645 / np.sqrt(300), rel=0.2)
    assert errors[1] == pytest.approx(1.645 * np.sqrt(0.6 / 1200), rel=0.2)


def test_a_total_counts_every_answer_of_a_request() -> None:
    """All is sampled, so nothing is estimated: three answers of 10 tokens, one of 20, two of 5."""
    requests = requests_from_lists(
        [[1], [2], [3]], answers=[3, 1, 2], output_tokens=[None, None, 5]
    )
    total = total_interval(
        requests, build_tree(requests), np.array([0, 1]), np.array([10, 20], np.int32)
    )
    assert (total.low, total.tokens, total.high) == pytest.approx((60, 60, 60))
