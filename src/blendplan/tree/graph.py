"""`to_networkx`: the prefix tree as a graph, for library users."""

from typing import TYPE_CHECKING, Any

from blendplan.requests.columns import Requests
from blendplan.tree.prefix_tree import PrefixTree

if TYPE_CHECKING:
    import networkx as nx


def to_networkx(tree: PrefixTree, requests: Requests | None = None) -> "nx.DiGraph[int]":
    """The tree as a directed graph from parents to children, nodes numbered as in the tree.

    Node attributes: ``depth``, prefix length in tokens; ``tokens``, length of the node's own
    segment; ``requests``, the rows of the requests that end at it; ``size``, the number of requests
    in its subtree. With ``requests`` also ``segment``, the node's own token ids, and ``ids``, the
    ids of the requests that end at it. Successors keep the order of the children.
    """
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph()
    for node in range(tree.node_count):
        parent = int(tree.parent[node])
        start, end = int(tree.request_start[node]), int(tree.request_end[node])
        own_end = int(tree.request_start[node + 1]) if node + 1 < tree.node_count else end
        above = int(tree.depth[parent]) if node else 0
        depth = int(tree.depth[node])
        rows = tree.order[start:own_end].tolist()
        attributes: dict[str, Any] = {
            "depth": depth,
            "tokens": depth - above,
            "requests": rows,
            "size": end - start,
        }
        if requests is not None:
            prompt = requests.prompt(int(tree.order[start])).tolist() if end > start else []
            attributes["segment"] = tuple(prompt[above:depth])
            attributes["ids"] = [requests.ids[row].as_py() for row in rows]
        graph.add_node(node, **attributes)
        if node:
            graph.add_edge(parent, node)
    return graph
