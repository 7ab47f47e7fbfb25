"""Totals, compute density and the sorted order of the prefix tree."""

from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.annotate import annotate
from blendplan.tree.build import build_tree
from blendplan.tree.graph import to_networkx
from blendplan.tree.layout import sort_tree
from blendplan.tree.prefix_tree import PrefixTree
from tests.oracles.tree import PROMPTS, check_structure

DEMANDS = st.floats(0, 8, allow_subnormal=False).map(lambda x: round(x, 3))


def below(tree: PrefixTree) -> list[list[int]]:
    """Requests of every subtree, from the graph's edges."""
    graph = to_networkx(tree)
    rows = []
    for v in range(tree.node_count):
        nodes = {v} | nx.descendants(graph, v)
        rows.append([row for node in nodes for row in graph.nodes[node]["requests"]])
    return rows


@settings(max_examples=60)
@given(PROMPTS, st.data())
def test_annotate_equals_sums_over_each_subtree(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    n = len(prompts)
    tree = build_tree(requests_from_lists(prompts))
    prompt_tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    memory_s = np.array(data.draw(st.lists(DEMANDS, min_size=n, max_size=n)))
    token_s = 0.25
    output_tokens = np.array(data.draw(st.lists(st.integers(1, 50), min_size=n, max_size=n)), float)
    compute_s = token_s * (prompt_tokens + output_tokens)
    totals = annotate(tree, prompt_tokens, compute_s, memory_s, output_tokens=output_tokens)
    sharers = Counter(tuple(p[: k + 1]) for p in prompts for k in range(len(p)))
    for v, rows in enumerate(below(tree)):
        assert totals.requests[v] == len(rows)
        assert totals.tokens[v] == prompt_tokens[rows].sum()
        distinct = {tuple(prompts[row][: k + 1]) for row in rows for k in range(len(prompts[row]))}
        assert totals.unique_tokens[v] == len(distinct)
        assert totals.shareable_tokens[v] == prompt_tokens[rows].sum() - len(distinct)
        compute = compute_s[rows].sum()
        memory = memory_s[rows].sum()
        assert totals.compute_s[v] == pytest.approx(compute)
        assert totals.memory_s[v] == pytest.approx(memory)
        # Each prompt token is divided among all requests whose prompts begin with it.
        divided = sum(
            1 / sharers[tuple(prompts[row][: k + 1])]
            for row in rows
            for k in range(len(prompts[row]))
        )
        saved = (totals.tokens[v] - divided) * token_s
        assert totals.sharing[v] == pytest.approx(saved / compute)
        assert -1e-12 <= totals.sharing[v] < 1
        if memory > 0:
            assert totals.density[v] == pytest.approx((compute - saved) / memory)
        else:
            assert totals.density[v] == np.inf


def test_sharing_without_output_lengths_is_the_share_of_prompt_tokens() -> None:
    prompts = [[1] * 80 + [2, i] * 10 for i in range(5)]
    tree = build_tree(requests_from_lists(prompts))
    totals = annotate(tree, np.full(5, 100, np.int32), np.full(5, 3.0), np.full(5, 2.0))
    assert totals.sharing[0] == pytest.approx(4 * 81 / 500)
    assert totals.density[0] == pytest.approx((1 - 4 * 81 / 500) * 1.5)


@settings(max_examples=60)
@given(PROMPTS, st.integers(0, 2**32 - 1))
def test_sort_orders_children_and_keeps_the_tree(prompts: list[list[int]], seed: int) -> None:
    requests = requests_from_lists(prompts)
    tree = build_tree(requests)
    # Few distinct values, so that ties occur, and infinity as of requests without memory traffic.
    density = np.random.default_rng(seed).choice([0.5, 1.0, 3.0, np.inf], tree.node_count)
    sorted_tree = sort_tree(tree, density)
    check_structure(sorted_tree)

    expected: list[tuple[int, ...]] = []

    def walk(graph: "nx.DiGraph[int]", v: int) -> None:
        expected.append(tuple(graph.nodes[v]["requests"]))
        # Python's sort is stable too.
        for child in sorted(graph.successors(v), key=lambda u: -density[u]):
            walk(graph, child)

    walk(to_networkx(tree), 0)
    graph = to_networkx(sorted_tree, requests)
    assert [tuple(graph.nodes[v]["requests"]) for v in sorted(graph)] == expected
    prefix: dict[int, tuple[int, ...]] = {0: ()}
    for parent, child in nx.bfs_edges(graph, 0):
        prefix[child] = prefix[parent] + graph.nodes[child]["segment"]
    for v in graph:
        assert all(tuple(prompts[row]) == prefix[v] for row in graph.nodes[v]["requests"])


def test_sorting_again_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 3, rng.integers(1, 9)).tolist() for _ in range(400)]
    tree = build_tree(requests_from_lists(prompts))
    columns = (tree_lengths(prompts), rng.random(400), rng.random(400))
    once = sort_tree(tree, annotate(tree, *columns).density)
    twice = sort_tree(once, annotate(once, *columns).density)
    assert once.order.tolist() == twice.order.tolist()
    assert once.parent.tolist() == twice.parent.tolist()
    assert once.order.tolist() != tree.order.tolist()


def tree_lengths(prompts: list[list[int]]) -> np.ndarray:
    return np.array([len(prompt) for prompt in prompts], dtype=np.int32)


def test_a_root_with_many_children_sorts_by_density() -> None:
    n = 20_000
    tree = build_tree(requests_from_lists([[i] for i in range(n)]))
    compute_s = np.random.default_rng(1).random(n)
    density = annotate(tree, np.ones(n, np.int32), compute_s, np.ones(n)).density
    assert sort_tree(tree, density).order.tolist() == np.argsort(-compute_s).tolist()
