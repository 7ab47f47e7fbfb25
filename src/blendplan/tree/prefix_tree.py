"""`PrefixTree`: the compressed prefix tree of a request set, as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrefixTree:
    """A compressed prefix tree of m nodes over n requests; nodes are in depth-first order.

    Node 0 is the root and stands for the empty prefix. A node stands for the tokens from
    ``depth[parent[v]]`` to ``depth[v]`` of any prompt below it. Identical prompts end in one node.
    After a split, a node moved to the root keeps its whole prefix in its own segment.

    Attributes:
        parent: parent node, -1 for the root; int32 [m].
        first_child, next_sibling: child lists, -1 where there is none; int32 [m].
        depth: prefix length in tokens at the end of the node's segment; int32 [m].
        request_start, request_end: the subtree's requests are
            ``order[request_start[v]:request_end[v]]``; int64 [m].
        order: requests in depth-first order; int64 [n].
        node_of: the node at which each request ends, indexed by request; int32 [n].
    """

    parent: NDArray[np.int32]
    first_child: NDArray[np.int32]
    next_sibling: NDArray[np.int32]
    depth: NDArray[np.int32]
    request_start: NDArray[np.int64]
    request_end: NDArray[np.int64]
    order: NDArray[np.int64]
    node_of: NDArray[np.int32]

    @property
    def node_count(self) -> int:
        """Number of nodes, the root included."""
        return len(self.parent)

    @property
    def common_tokens(self) -> int:
        """Leading tokens that all prompts have in common."""
        whole = self.request_end - self.request_start == len(self)
        return int(self.depth[np.flatnonzero(whole)[-1]])

    def __len__(self) -> int:
        return len(self.order)
