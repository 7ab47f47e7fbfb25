"""The prefix tree against an obvious one made of dictionaries."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.requests import requests_from_lists
from blendplan.tree import (
    PrefixTree,
    block_chains,
    build_tree,
    optimal_sharing,
    prefix_tokens_unique,
    shared_prefix_tokens,
    sort_tree,
    to_networkx,
)

# Few distinct tokens, negative ones as the four-bytes-a-token estimate makes them, and a repeated
# part longer than the vector width of the comparison.
TOKENS = st.sampled_from([0, 1, -7, 2**31 - 1])
RUNS = st.lists(TOKENS, max_size=6).map(lambda tokens: tokens * 9)
PROMPTS = st.lists(
    st.one_of(
        st.lists(TOKENS, min_size=1, max_size=8),
        st.tuples(RUNS, st.lists(TOKENS, min_size=1, max_size=4)).map(lambda two: two[0] + two[1]),
    ),
    min_size=1,
    max_size=24,
)

Prompt = tuple[int, ...]


def oracle(prompts: list[list[int]]) -> "nx.DiGraph[Prompt]":
    """Compressed tree whose nodes are prefixes: ends of prompts and branching points."""
    followers: dict[Prompt, set[int]] = {}
    for prompt in prompts:
        for length in range(len(prompt)):
            followers.setdefault(tuple(prompt[:length]), set()).add(prompt[length])
    nodes = {prefix for prefix, tokens in followers.items() if len(tokens) > 1}
    nodes |= {tuple(prompt) for prompt in prompts} | {()}
    graph: nx.DiGraph[Prompt] = nx.DiGraph()
    for node in nodes:
        rows = [row for row, prompt in enumerate(prompts) if tuple(prompt) == node]
        graph.add_node(node, requests=rows)
        if node:
            parent = next(node[:k] for k in range(len(node) - 1, -1, -1) if node[:k] in nodes)
            graph.add_edge(parent, node)
    return graph


def by_prefix(tree: PrefixTree, prompts: list[list[int]]) -> "nx.DiGraph[Prompt]":
    """A flat tree as the oracle's graph."""
    graph = to_networkx(tree, requests_from_lists(prompts))
    prefix: dict[int, Prompt] = {0: ()}
    for parent, child in nx.bfs_edges(graph, 0):
        prefix[child] = prefix[parent] + graph.nodes[child]["segment"]
    for node in graph:
        graph.nodes[node].keys()
        assert len(prefix[node]) == graph.nodes[node]["depth"]
        for attribute in ("depth", "tokens", "size", "segment", "ids"):
            del graph.nodes[node][attribute]
    return nx.relabel_nodes(graph, prefix)


def check_structure(tree: PrefixTree) -> None:
    """What holds of every tree, sorted and split ones too."""
    m, n = tree.node_count, len(tree)
    assert sorted(tree.order.tolist()) == list(range(n))
    assert (tree.parent[0], tree.depth[0]) == (-1, 0)
    assert (tree.request_start[0], tree.request_end[0]) == (0, n)
    children: dict[int, list[int]] = {v: [] for v in range(m)}
    for v in range(1, m):
        p = int(tree.parent[v])
        assert p < v
        assert tree.depth[p] < tree.depth[v]
        assert tree.request_start[p] <= tree.request_start[v] < tree.request_end[v]
        assert tree.request_end[v] <= tree.request_end[p]
        children[p].append(v)
    for v in range(m):
        chain = []
        child = int(tree.first_child[v])
        while child >= 0:
            chain.append(child)
            child = int(tree.next_sibling[child])
        assert chain == children[v]
        # Own requests first, then the children's ranges, without a gap.
        place = int(tree.request_start[v])
        while place < tree.request_end[v] and tree.node_of[tree.order[place]] == v:
            place += 1
        if v:
            assert place > tree.request_start[v] or len(chain) > 1
        for child in chain:
            assert tree.request_start[child] == place
            place = int(tree.request_end[child])
        assert place == tree.request_end[v]


@settings(max_examples=100, deadline=None)
@given(PROMPTS)
def test_tree_equals_the_oracle(prompts: list[list[int]]) -> None:
    tree = build_tree(requests_from_lists(prompts))
    check_structure(tree)
    expected = oracle(prompts)
    found = by_prefix(tree, prompts)
    assert dict(found.nodes(data=True)) == dict(expected.nodes(data=True))
    assert set(found.edges) == set(expected.edges)
    assert tree.order.tolist() == sorted(range(len(prompts)), key=lambda row: prompts[row])
    for row, prompt in enumerate(prompts):
        assert tree.depth[tree.node_of[row]] == len(prompt)


@settings(max_examples=60, deadline=None)
@given(PROMPTS)
def test_sharing_counts_distinct_prefixes(prompts: list[list[int]]) -> None:
    tree = build_tree(requests_from_lists(prompts))
    prefixes = {tuple(prompt[: k + 1]) for prompt in prompts for k in range(len(prompt))}
    total = sum(map(len, prompts))
    assert prefix_tokens_unique(tree) == len(prefixes)
    assert optimal_sharing(tree) == pytest.approx(1 - len(prefixes) / total)
    assert 0 <= optimal_sharing(tree) < 1
    for row, prompt in enumerate(prompts):
        others = prompts[:row] + prompts[row + 1 :]
        expected = max((common(prompt, other) for other in others), default=0)
        assert shared_prefix_tokens(tree)[row] == expected


def common(a: list[int], b: list[int]) -> int:
    k = 0
    while k < min(len(a), len(b)) and a[k] == b[k]:
        k += 1
    return k


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_block_chains_equal_dictionary_of_prefixes(
    prompts: list[list[int]], block_size: int, random: "object"
) -> None:
    requests = requests_from_lists(prompts)
    tree = build_tree(requests)
    shuffled = sort_tree(tree, np.random.default_rng(len(prompts)).random(tree.node_count))
    owners: dict[Prompt, set[int]] = {}
    for row, prompt in enumerate(prompts):
        for end in range(block_size, len(prompt) + 1, block_size):
            owners.setdefault(tuple(prompt[:end]), set()).add(row)
    shared = {prefix for prefix, rows in owners.items() if len(rows) > 1}
    for some_tree in (tree, shuffled):
        chains = block_chains(some_tree, requests, block_size)
        meaning: dict[int, Prompt] = {}
        for row, prompt in enumerate(prompts):
            ids = chains.chain_ids[chains.chain_offsets[row] : chains.chain_offsets[row + 1]]
            ends = range(block_size, len(prompt) + 1, block_size)
            listed = [tuple(prompt[:end]) for end in ends if tuple(prompt[:end]) in shared]
            assert len(ids) == len(listed)
            for block, prefix in zip(ids.tolist(), listed, strict=True):
                assert meaning.setdefault(block, prefix) == prefix
        assert sorted(meaning) == list(range(chains.count))
        assert len(set(meaning.values())) == chains.count == len(shared)


@pytest.mark.parametrize(
    ("prompts", "nodes", "unique"),
    [
        pytest.param([[5]], 2, 1, id="one request"),
        pytest.param([[5, 6, 7]] * 1000, 2, 3, id="all identical"),
        pytest.param([[1] * 5000 + [i] for i in range(300)], 302, 5300, id="one long prefix"),
        pytest.param([[1] * (i + 1) for i in range(700)], 701, 700, id="each extends the last"),
        pytest.param([[1] * 241_402, [1] * 241_401 + [2]], 4, 241_403, id="very long prompts"),
    ],
)
def test_extreme_inputs(prompts: list[list[int]], nodes: int, unique: int) -> None:
    tree = build_tree(requests_from_lists(prompts))
    assert tree.node_count == nodes
    assert prefix_tokens_unique(tree) == unique
    check_structure(tree)


def test_identical_prompts_keep_input_order() -> None:
    tree = build_tree(requests_from_lists([[2], [1], [2], [1], [2]]))
    assert tree.order.tolist() == [1, 3, 0, 2, 4]
    assert tree.node_of.tolist() == [2, 1, 2, 1, 2]


def test_block_size_must_be_positive() -> None:
    requests = requests_from_lists([[1]])
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        block_chains(build_tree(requests), requests, 0)
