"""What each sampled request stands for, and the kinds of requests that decide it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.lengths.strata import Strata, strata_of
from blendplan.lengths.weights import sample_weights
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree

PROMPTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=12), min_size=1, max_size=60)


@settings(max_examples=60)
@given(PROMPTS, st.data())
def test_weights_are_what_kinds_have_over_what_was_sampled(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    n = len(prompts)
    known = data.draw(st.lists(st.sampled_from([None, None, 5]), min_size=n, max_size=n))
    requests = requests_from_lists(prompts, output_tokens=known)
    tree = build_tree(requests)
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, unique=True))
    weights = sample_weights(requests, tree, np.array(rows))
    population = {row for row in range(n) if known[row] is None} | set(rows)
    assert weights.sum() == pytest.approx(len(population))
    assert (weights >= 1.0 - 1e-12).all()
    # Where every kind has a sample, the samples of each stand for just its own requests.
    kinds = strata_of(requests, tree).number
    sampled = Counter(kinds[rows].tolist())
    sizes = Counter(kinds[sorted(population)].tolist())
    if set(sizes) <= set(sampled):
        expected = [sizes[kinds[row]] / sampled[kinds[row]] for row in rows]
        assert weights.tolist() == pytest.approx(expected)


def test_kinds_depend_on_words_at_the_end_where_nothing_else_differs() -> None:
    """Random questions of one length: half ask for a letter, half for a report."""
    random = np.random.default_rng(1)
    asks = [[1, 2, 3], [4, 5, 6]]
    prompts = [[*random.integers(100, 10**6, 40).tolist(), *asks[i % 2]] for i in range(400)]
    requests = requests_from_lists(prompts)
    kinds = strata_of(requests, build_tree(requests))
    asked = np.arange(400) % 2
    assert len(kinds) > 1
    for kind in range(len(kinds)):
        assert len(set(asked[kinds.number == kind])) == 1
    # The first cut is between them, so kinds of one ask have neighbouring numbers.
    first = np.array([asked[kinds.number == kind][0] for kind in range(len(kinds))])
    assert np.count_nonzero(first[1:] != first[:-1]) == 1
    assert kinds.cut[np.flatnonzero(first[1:] != first[:-1])] == 0


def test_kinds_depend_on_length_where_there_are_no_words() -> None:
    random = np.random.default_rng(2)
    prompts = [random.integers(0, 10**6, 10 + 1000 * (i % 2)).tolist() for i in range(400)]
    requests = requests_from_lists(prompts)
    kinds = strata_of(requests, build_tree(requests)).number
    assert set(kinds[::2]).isdisjoint(kinds[1::2])


def test_equal_requests_are_one_kind() -> None:
    requests = requests_from_lists([[1, 2, 3]] * 500)
    kinds = strata_of(requests, build_tree(requests))
    assert len(kinds) == 1
    weights = sample_weights(requests, build_tree(requests), np.arange(4))
    assert weights.tolist() == [125.0] * 4


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 6), st.data())
def test_joined_kinds_hold_enough(counts: list[int], least: int, data: st.DataObject) -> None:
    cut = data.draw(st.permutations(range(len(counts) - 1)))
    strata = Strata(np.arange(len(counts)), np.array(cut, dtype=np.int64))
    joined = strata.joined(np.array(counts), least)
    assert joined[0] == 0
    assert set(np.diff(joined).tolist()) <= {0, 1}
    held = np.bincount(joined, counts)
    assert len(held) == 1 or held.min() >= least
    if min(counts) >= least:
        assert len(held) == len(counts)


def test_a_poor_kind_joins_the_neighbour_that_it_was_parted_from_last() -> None:
    strata = Strata(np.arange(4), np.array([2, 0, 1]))
    assert strata.joined(np.array([5, 0, 5, 5]), 1).tolist() == [0, 0, 1, 2]
    assert strata.joined(np.array([5, 5, 0, 5]), 1).tolist() == [0, 1, 2, 2]
