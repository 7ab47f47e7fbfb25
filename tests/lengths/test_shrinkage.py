"""What a sample says of the rest when subtrees lean on what they are part of."""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blendplan.lengths.bins import BinnedFactor
from blendplan.lengths.credibility import Moments, compare_groups, credibility
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predict import predict_lengths
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.shrinkage import ShrinkagePredictor
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree
from blendplan.tree.graph import to_networkx
from blendplan.tree.prefix_tree import PrefixTree
from tests.oracles.tree import PROMPTS

Sample = tuple[list[list[int]], list[int], list[int]]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Prompts, sampled rows and their lengths."""
    prompts = draw(PROMPTS)
    rows = draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, unique=True))
    lengths = draw(st.lists(st.integers(1, 500), min_size=len(rows), max_size=len(rows)))
    return prompts, rows, lengths


def fitted(predictor: ShrinkagePredictor | NearestSubtreePredictor, sample: Sample) -> Lengths:
    prompts, rows, lengths = sample
    tree = build_tree(requests_from_lists(prompts))
    return predictor.fit(tree, np.array(rows), np.array(lengths, np.int32)).predict(tree.node_of)


# A stated strength


@settings(max_examples=80, deadline=None)
@given(samples())
def test_without_strength_it_is_the_mean_of_the_nearest_subtree(sample: Sample) -> None:
    mean = fitted(ShrinkagePredictor(0.0), sample).mean
    assert mean == pytest.approx(fitted(NearestSubtreePredictor(), sample).mean)


@settings(max_examples=40, deadline=None)
@given(samples())
def test_with_infinite_strength_it_is_the_mean_of_all(sample: Sample) -> None:
    summary = fitted(ShrinkagePredictor(np.inf), sample)
    assert summary.mean == pytest.approx(np.full(len(sample[0]), np.mean(sample[2])))


@settings(max_examples=80, deadline=None)
@given(samples(), st.sampled_from([0.1, 1.0, 7.0]))
def test_shrinkage_equals_the_recursion_over_the_graph(sample: Sample, strength: float) -> None:
    prompts, rows, lengths = sample
    # With two bins of samples, the prompt's length has a say too; tested by itself.
    assume(len(rows) < 2 * ShrinkagePredictor().group_samples // 4)
    tree = build_tree(requests_from_lists(prompts))
    graph = to_networkx(tree)
    seen = dict(zip(rows, lengths, strict=True))
    below = {
        v: [
            seen[row]
            for w in {v, *nx.descendants(graph, v)}
            for row in seen
            if tree.node_of[row] == w
        ]
        for v in graph
    }

    def own_share(v: int) -> float:
        return len(below[v]) / (len(below[v]) + strength)

    def lent(v: int) -> float:
        """Mean of a node's samples, each as far as its child borrows."""
        weights = {c: len(below[c]) * (1 - own_share(c)) for c in graph.successors(v) if below[c]}
        here = [seen[row] for row in seen if tree.node_of[row] == v]
        total = sum(here) + sum(w * np.mean(below[c]) for c, w in weights.items())
        return float(total / (len(here) + sum(weights.values())))

    def lends(v: int) -> float:
        if v == 0:
            return lent(v)
        parent = next(iter(graph.predecessors(v)))
        if not below[v]:
            return lends(parent)
        return own_share(v) * lent(v) + (1 - own_share(v)) * lends(parent)

    def estimate(v: int) -> float:
        if v == 0:
            return float(np.mean(below[v]))
        parent = next(iter(graph.predecessors(v)))
        if not below[v]:
            return estimate(parent)
        return own_share(v) * float(np.mean(below[v])) + (1 - own_share(v)) * lends(parent)

    mean = fitted(ShrinkagePredictor(strength), sample).mean
    assert mean == pytest.approx([estimate(int(v)) for v in tree.node_of])


# An estimated strength


@settings(max_examples=100, deadline=None)
@given(samples(), st.randoms(use_true_random=False))
def test_predictions_stay_among_the_samples_and_do_not_depend_on_their_order(
    sample: Sample, random: object
) -> None:
    prompts, rows, lengths = sample
    summary = fitted(ShrinkagePredictor(), sample)
    low, high = min(lengths), max(lengths)
    assert np.all(summary.mean >= low - 1e-6)
    assert np.all(summary.mean <= high + 1e-6)
    assert np.all(summary.p50 <= summary.p90)
    assert np.all(summary.p50 > 0)
    assert np.all(summary.p90 <= high * (high / low) + 1e-6)
    paired = list(zip(rows, lengths, strict=True))
    random.shuffle(paired)  # type: ignore[attr-defined]
    shuffled = fitted(
        ShrinkagePredictor(), (prompts, [row for row, _ in paired], [d for _, d in paired])
    )
    for one, other in zip(summary.columns, shuffled.columns, strict=True):
        assert one.tolist() == other.tolist()


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(1, 40))
def test_lengths_scale(sample: Sample, factor: int) -> None:
    prompts, rows, lengths = sample
    once = fitted(ShrinkagePredictor(), sample)
    scaled = fitted(ShrinkagePredictor(), (prompts, rows, [factor * d for d in lengths]))
    for one, other in zip(once.columns, scaled.columns, strict=True):
        assert other == pytest.approx(factor * one)


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(1, 99))
def test_samples_that_agree_are_believed(sample: Sample, length: int) -> None:
    prompts, rows, _ = sample
    for column in fitted(ShrinkagePredictor(), (prompts, rows, [length] * len(rows))).columns:
        assert column == pytest.approx(np.full(len(prompts), length))


def groups_of(
    means: np.ndarray, size: int, sigma: float, seed: int
) -> tuple[PrefixTree, np.ndarray]:
    """Templates with log-normal lengths, each with its mean; prompts go on differently."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(len(means)), size)
    prompts = [[1, 100 + int(g), 1000 + i] for i, g in enumerate(member)]
    noise = np.exp(rng.normal(-(sigma**2) / 2, sigma, len(member)))
    lengths = np.maximum(1, np.rint(means[member] * noise)).astype(np.int32)
    return build_tree(requests_from_lists(prompts)), lengths


def error_of(
    predictor: ShrinkagePredictor | NearestSubtreePredictor,
    tree: PrefixTree,
    lengths: np.ndarray,
    truth: np.ndarray,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean square error of the means relative to their square, and error of their sum."""
    rows = np.sort(np.random.default_rng(seed).choice(len(lengths), len(lengths) // 20, False))
    mean = predictor.fit(tree, rows, lengths[rows]).predict(tree.node_of).mean
    return float(((mean - truth) ** 2).mean() / truth.mean() ** 2), float(
        mean.sum() / truth.sum() - 1
    )


def test_groups_parted_by_chance_lean_on_their_parent() -> None:
    truth = np.full(300, 400.0)
    tree, lengths = groups_of(truth, 40, 1.0, 1)
    shrunk, _ = error_of(ShrinkagePredictor(), tree, lengths, np.repeat(truth, 40))
    paper, _ = error_of(NearestSubtreePredictor(), tree, lengths, np.repeat(truth, 40))
    assert shrunk < paper / 8


def test_groups_that_differ_are_told_apart() -> None:
    truth = np.exp(np.random.default_rng(3).normal(5, 1, 300))
    tree, lengths = groups_of(truth, 100, 0.5, 2)
    each = np.repeat(truth, 100)
    shrunk, total = error_of(ShrinkagePredictor(), tree, lengths, each)
    paper, total_of_paper = error_of(NearestSubtreePredictor(), tree, lengths, each)
    of_all, _ = error_of(ShrinkagePredictor(np.inf), tree, lengths, each)
    assert shrunk < min(paper, of_all / 8)
    assert total == pytest.approx(total_of_paper, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_totals_stay_right_with_heavy_tails(seed: int) -> None:
    """Short groups are sure of themselves and long ones are not; the total must not suffer."""
    truth = np.exp(np.random.default_rng(seed).normal(5, 0.8, 200))
    tree, lengths = groups_of(truth, 100, 0.8, seed)
    rows = np.sort(np.random.default_rng(seed).choice(len(lengths), 1000, False))
    total = [
        predictor.fit(tree, rows, lengths[rows]).predict(tree.node_of).mean.sum()
        for predictor in (ShrinkagePredictor(), NearestSubtreePredictor())
    ]
    assert total[0] == pytest.approx(total[1], rel=0.04)


def test_a_kind_with_short_answers_is_not_drawn_to_the_others() -> None:
    rng = np.random.default_rng(4)
    prompts = [[1, i] for i in range(2000)] + [[2, i] for i in range(2000)]
    lengths = np.concatenate([np.full(2000, 2), rng.lognormal(6, 1, 2000)]).astype(np.int32)
    tree = build_tree(requests_from_lists(prompts))
    rows = np.arange(0, 4000, 50)
    summary = ShrinkagePredictor().fit(tree, rows, lengths[rows]).predict(tree.node_of)
    assert summary.mean[:2000].max() < 2.5
    assert summary.p90[:2000].max() < 2.5
    assert summary.mean[2000:].mean() == pytest.approx(lengths[rows[40:]].mean(), rel=0.02)


@pytest.mark.parametrize("sigma", [0.2, 1.3])
def test_quantiles_hold_what_they_promise(sigma: float) -> None:
    covered = []
    for seed in range(12):
        tree, lengths = groups_of(np.full(50, 300.0), 100, sigma, seed)
        rows = np.sort(np.random.default_rng(seed).choice(5000, 100, False))
        summary = ShrinkagePredictor().fit(tree, rows, lengths[rows]).predict(tree.node_of)
        covered.append([(lengths <= summary.p50).mean(), (lengths <= summary.p90).mean()])
    p50, p90 = np.mean(covered, axis=0)
    assert p50 == pytest.approx(0.5, abs=0.05)
    assert p90 == pytest.approx(0.9, abs=0.03)


# The strength


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(1, 50), max_size=6)),
        min_size=1,
        max_size=12,
    )
)
def test_evidence_is_an_analysis_of_variance(rows: list[tuple[int, list[int]]]) -> None:
    prior = 4.0
    values = [np.log(np.array(samples, np.float64)) for _, samples in rows]
    moments = Moments(
        np.array([float(len(x)) for x in values]),
        np.array([x.sum() for x in values]),
        np.array([(x * x).sum() for x in values]),
    )
    population = np.array([one for one, _ in rows])
    evidence, within = compare_groups(moments, population, 2, prior)
    for number in range(2):
        groups = [x for x, (one, _) in zip(values, rows, strict=True) if one == number and len(x)]
        if sum(map(len, groups)) < 2:
            assert evidence.weight[number] == 0.0
            continue
        together = np.concatenate(groups)
        inside = sum(float(((x - x.mean()) ** 2).sum()) for x in groups)
        apart = sum(len(x) * float((x.mean() - together.mean()) ** 2) for x in groups)
        pairs = len(together) - len(groups)
        expected = (inside + prior * together.var(ddof=1)) / (pairs + prior)
        assert within[number] == pytest.approx(expected, abs=1e-6)
        told = pairs / (len(together) - 1)
        scale = len(together) - sum(len(x) ** 2 for x in groups) / len(together)
        assert evidence.weight[number] == pytest.approx(told * scale)
        if expected > 1e-6:
            assert evidence.between[number] == pytest.approx(
                told * (apart / expected - (len(groups) - 1)), abs=1e-6
            )


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 10.0])
def test_strength_is_found_again(ratio: float) -> None:
    """Of normal groups whose variance between is that many times the one within."""
    rng = np.random.default_rng(8)
    means = rng.normal(5.0, np.sqrt(ratio), 2000)
    size = rng.integers(1, 6, 2000)
    groups = [rng.normal(mean, 1.0, n) for mean, n in zip(means, size, strict=True)]
    moments = Moments(
        size.astype(np.float64),
        np.array([x.sum() for x in groups]),
        np.array([(x * x).sum() for x in groups]),
    )
    evidence, within = compare_groups(moments, np.zeros(2000, np.int64), 1, 4.0)
    assert within[0] == pytest.approx(1.0, rel=0.05)
    assert evidence.ratio(0.5, 4.0)[0] == pytest.approx(ratio, rel=0.1, abs=0.03)
    share = credibility(moments, np.full(2000, ratio), np.ones(2000), 1e9)
    assert share == pytest.approx(size * ratio / (size * ratio + 1))


# Prompt length and max_tokens


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 99)),
        min_size=1,
        max_size=80,
    ),
    st.integers(1, 6),
    st.integers(1, 10),
)
def test_factors_keep_every_group_as_long_as_it_is(
    rows: list[tuple[int, int, int]], bins: int, bin_samples: int
) -> None:
    group, number, length = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    ratio = length / 50.0
    learned = BinnedFactor(bins, bin_samples).fit(group, number, ratio)
    factor = learned.predict(group, number)
    for one in np.unique(group):
        mine = group == one
        assert factor[mine].mean() == pytest.approx(1.0)
        assert len(np.unique(factor[mine])) <= bins
        if len(np.unique(number[mine])) == 1:
            assert factor[mine] == pytest.approx(np.ones(mine.sum()))
    assert np.all((learned.leverage(group, number) >= 0) & (learned.leverage(group, number) <= 0.5))
    assert learned.predict(np.array([9]), np.array([3])).tolist() == [1.0]
    # Far numbers have the factor of the last bin.
    last = number[group == group[0]].max()
    assert learned.predict(group[:1], np.array([1000])) == pytest.approx(
        learned.predict(group[:1], np.array([last]))
    )


def test_a_number_that_says_nothing_changes_little() -> None:
    rng = np.random.default_rng(5)
    group, number = np.zeros(1000, np.int64), rng.integers(0, 1000, 1000)
    factor = BinnedFactor().fit(group, number, rng.lognormal(0, 1, 1000)).predict(group, number)
    assert np.abs(factor - 1).mean() < 0.1


def test_long_prompts_with_long_outputs() -> None:
    rng = np.random.default_rng(6)
    size = rng.integers(2, 300, 4000)
    prompts = [[1, 10 + i] + [5] * int(s - 2) for i, s in enumerate(size)]
    lengths = np.maximum(1, np.rint(3.0 * size * rng.lognormal(0, 0.1, 4000))).astype(np.int32)
    tree = build_tree(requests_from_lists(prompts))
    rows = np.arange(0, 4000, 20)
    mean = ShrinkagePredictor().fit(tree, rows, lengths[rows]).predict(tree.node_of).mean
    plain = NearestSubtreePredictor().fit(tree, rows, lengths[rows]).predict(tree.node_of).mean
    assert np.abs(mean - lengths).mean() < 0.3 * np.abs(plain - lengths).mean()


def test_max_tokens_tell_requests_apart(tmp_path: Path) -> None:
    """Two kinds of requests that only their caps tell apart; a third are cut off."""
    rng = np.random.default_rng(7)
    cap = np.where(rng.random(2000) < 0.5, 20, 4000)
    lengths = np.minimum(cap, np.rint(rng.lognormal(3, 0.3, 2000) * np.where(cap == 20, 1, 20)))
    requests = requests_from_lists(
        [[1, i] for i in range(2000)],
        max_tokens=cap.tolist(),
        ids=[str(i) for i in range(2000)],
    )
    file = tmp_path / "sample.jsonl"
    with file.open("w") as lines:
        for row in range(0, 2000, 10):
            lines.write(json.dumps({"id": str(row), "output_tokens": int(lengths[row])}) + "\n")
    predicted = predict_lengths(requests, build_tree(requests), f"sample:{file}")
    for kind in (20, 4000):
        assert predicted.mean[cap == kind].mean() == pytest.approx(
            lengths[cap == kind].mean(), rel=0.06
        )
    assert predicted.p90.max() <= 4000
    assert predicted.p90[cap == 20].max() <= 20
