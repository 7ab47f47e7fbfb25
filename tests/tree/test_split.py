"""The conditional split: what it may cost, what it must bring, what it must keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.annotate import annotate
from blendplan.tree.build import build_tree
from blendplan.tree.layout import sort_tree
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import optimal_sharing, prefix_tokens_unique
from blendplan.tree.splitting.split import split_tree
from tests.oracles.tree import PROMPTS, check_structure


def displacement(tree: PrefixTree, compute_s: list[float], memory_s: list[float]) -> float:
    """Mean distance of the leaves from their places in falling order of density, by work.

    Compute must be one second a prompt token; that of a shared prefix is divided.
    """
    share = [0.0]
    for v in range(1, tree.node_count):
        p = tree.parent[v]
        requests = tree.request_end[v] - tree.request_start[v]
        share.append(share[p] + (tree.depth[v] - tree.depth[p]) / requests)
    leaves = []
    for v in sorted(set(tree.node_of.tolist())):
        rows = np.flatnonzero(tree.node_of == v).tolist()
        memory = sum(memory_s[row] for row in rows)
        work = memory + sum(compute_s[row] for row in rows)
        leaves.append((share[v] * len(rows) / memory, work))
    total = sum(work for _, work in leaves)

    def places(order: list[int]) -> dict[int, float]:
        done, place = 0.0, {}
        for leaf in order:
            place[leaf] = done + leaves[leaf][1] / 2
            done += leaves[leaf][1]
        return place

    now = places(list(range(len(leaves))))
    ideal = places(sorted(now, key=lambda leaf: -leaves[leaf][0]))
    return sum(work * abs(now[i] - ideal[i]) for i, (_, work) in enumerate(leaves)) / total**2


def columns(
    prompts: list[list[int]], memory_s: list[float]
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Prompt tokens, compute of one second a token, and memory traffic."""
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    return lengths, lengths.astype(np.float64), np.array(memory_s, dtype=np.float64)


@settings(max_examples=60)
@given(PROMPTS, st.sampled_from([0.0, 0.5, 0.8, 0.99]), st.integers(0, 2**32 - 1))
def test_split_keeps_its_promises(prompts: list[list[int]], preserve: float, seed: int) -> None:
    tree = build_tree(requests_from_lists(prompts))
    memory_s = np.random.default_rng(seed).lognormal(0, 2, len(prompts)).tolist()
    demand = columns(prompts, memory_s)
    split = split_tree(tree, *demand, preserve)
    check_structure(split)

    # A node's prefix is that of every request below it.
    for v in range(split.node_count):
        rows = split.order[split.request_start[v] : split.request_end[v]].tolist()
        assert len({tuple(prompts[row][: split.depth[v]]) for row in rows}) == 1
    for row, prompt in enumerate(prompts):
        assert split.depth[split.node_of[row]] == len(prompt)

    shareable = sum(map(len, prompts)) - prefix_tokens_unique(tree)
    recomputed = prefix_tokens_unique(split) - prefix_tokens_unique(tree)
    assert 0 <= recomputed <= (1 - preserve) * shareable

    density = annotate(split, *demand).density
    for v in range(split.node_count):
        u = split.next_sibling[v]
        assert u < 0 or density[v] >= density[u] * (1 - 1e-9)

    only_sorted = sort_tree(tree, annotate(tree, *demand).density)
    before = displacement(only_sorted, demand[1].tolist(), memory_s)
    assert displacement(split, demand[1].tolist(), memory_s) <= before + 1e-9


@settings(max_examples=40)
@given(PROMPTS, st.integers(0, 2**32 - 1))
def test_preserving_everything_only_sorts(prompts: list[list[int]], seed: int) -> None:
    tree = build_tree(requests_from_lists(prompts))
    demand = columns(prompts, np.random.default_rng(seed).lognormal(0, 2, len(prompts)).tolist())
    split = split_tree(tree, *demand, 1.0)
    only_sorted = sort_tree(tree, annotate(tree, *demand).density)
    assert split.order.tolist() == only_sorted.order.tolist()
    assert split.depth.tolist() == only_sorted.depth.tolist()


def two_families() -> tuple[list[list[int]], list[float]]:
    """A compute-heavy family with a memory-heavy request, 3, and the reverse, with 55."""
    prompts = [[f] * shared + [i] * 100 for f, shared in ((1, 30), (2, 50)) for i in range(40)]
    memory_s = [1.0] * 40 + [100.0] * 40
    memory_s[3], memory_s[55] = 1000.0, 0.5
    return prompts, memory_s


INNER = [row for row in range(80) if row not in (3, 55)]


def test_outliers_move_to_the_root_with_their_prefix() -> None:
    prompts, memory_s = two_families()
    tree = build_tree(requests_from_lists(prompts))
    split = split_tree(tree, *columns(prompts, memory_s), 0.95)
    assert split.order.tolist() == [55, *INNER, 3]
    for outlier, depth in ((3, 130), (55, 150)):
        assert split.parent[split.node_of[outlier]] == 0
        assert split.depth[split.node_of[outlier]] == depth
    assert prefix_tokens_unique(split) - prefix_tokens_unique(tree) == 30 + 50
    assert displacement(split, [1.0 * len(p) for p in prompts], memory_s) == 0


def test_the_better_outlier_moves_when_the_budget_allows_one() -> None:
    prompts, memory_s = two_families()
    tree = build_tree(requests_from_lists(prompts))
    shareable = 39 * 30 + 39 * 50
    split = split_tree(tree, *columns(prompts, memory_s), 1 - 60 / shareable)
    # Request 3 has 1130 s of work in the wrong place, request 55 has 150.
    assert split.order.tolist() == [*INNER[:39], 55, *INNER[39:], 3]
    assert split.parent[split.node_of[55]] != 0
    assert prefix_tokens_unique(split) - prefix_tokens_unique(tree) == 30


def test_neighbouring_outliers_move_as_one_group() -> None:
    prompts, memory_s = two_families()
    memory_s[4] = memory_s[5] = 1000.0
    tree = build_tree(requests_from_lists(prompts))
    split = split_tree(tree, *columns(prompts, memory_s), 0.95)
    assert split.order.tolist()[-3:] == [3, 4, 5]
    group = {int(split.parent[split.node_of[row]]) for row in (3, 4, 5)}
    assert len(group) == 1
    assert split.depth[group.pop()] == 30
    assert prefix_tokens_unique(split) - prefix_tokens_unique(tree) == 30 + 50


def test_outliers_move_no_further_than_they_must() -> None:
    """A first token that all prompts share leaves the root one child; the split works below it."""
    prompts, memory_s = two_families()
    prompts = [[9, *prompt] for prompt in prompts]
    tree = build_tree(requests_from_lists(prompts))
    split = split_tree(tree, *columns(prompts, memory_s), 0.95)
    assert np.count_nonzero(split.parent == 0) == 1
    assert split.order.tolist() == [55, *INNER, 3]
    assert prefix_tokens_unique(split) - prefix_tokens_unique(tree) == 30 + 50


def test_much_sharing_is_given_up_only_when_allowed() -> None:
    rng = np.random.default_rng(5)
    prompts = [[f] * 40 + rng.integers(0, 9, 3).tolist() for f in rng.integers(0, 6, 800)]
    memory_s = (40 * rng.lognormal(0, 1.5, 800)).tolist()
    demand = columns(prompts, memory_s)
    tree = build_tree(requests_from_lists(prompts))
    left = [
        displacement(split_tree(tree, *demand, preserve), demand[1].tolist(), memory_s)
        for preserve in (1.0, 0.99, 0.9, 0.5)
    ]
    assert left == sorted(left, reverse=True)
    assert left[3] < left[0] / 2
    assert optimal_sharing(split_tree(tree, *demand)) >= 0.99 * optimal_sharing(tree)


def test_split_is_deterministic() -> None:
    rng = np.random.default_rng(7)
    prompts = [rng.integers(0, 3, rng.integers(1, 12)).tolist() for _ in range(500)]
    demand = columns(prompts, rng.lognormal(0, 2, 500).tolist())
    tree = build_tree(requests_from_lists(prompts))
    first, second = (split_tree(tree, *demand, 0.5) for _ in range(2))
    assert first.order.tolist() == second.order.tolist()
    assert first.parent.tolist() == second.parent.tolist()
    assert first.order.tolist() != sort_tree(tree, annotate(tree, *demand).density).order.tolist()


def test_no_work_at_all_changes_nothing() -> None:
    tree = build_tree(requests_from_lists([[1, 2], [1, 3], [2]]))
    zeros = np.zeros(3)
    split = split_tree(tree, np.array([2, 2, 1], np.int32), zeros, zeros, 0.0)
    assert split.order.tolist() == tree.order.tolist()


def test_preserve_is_checked() -> None:
    tree = build_tree(requests_from_lists([[1]]))
    one = np.ones(1)
    with pytest.raises(BlendplanError, match="preserve must be between 0 and 1, got 99"):
        split_tree(tree, np.ones(1, np.int32), one, one, 99)
