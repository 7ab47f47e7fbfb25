"""An obvious prefix tree made of dictionaries, and what holds of every flat one."""

import networkx as nx
from hypothesis import strategies as st

from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.graph import to_networkx
from blendplan.tree.prefix_tree import PrefixTree

# Few distinct tokens, and repeated parts longer than the vector width of the comparison.
TOKENS = st.sampled_from([0, 1, 7, 2**31 - 1])
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
