"""`repeat_requests`: the tree of sequences from that of the requests that ask for them."""

from dataclasses import replace

import numpy as np

from blendplan.offsets import offsets_of
from blendplan.requests.sequences import Sequences
from blendplan.tree.prefix_tree import PrefixTree


def repeat_requests(tree: PrefixTree, sequences: Sequences) -> PrefixTree:
    """The same nodes over the s sequences of the n requests.

    It is the tree that all prompts would give if each sequence were a request by itself: those of
    one request end in one node, one after the other.
    """
    if sequences.offsets is None:
        return tree
    before = offsets_of(np.diff(sequences.offsets)[tree.order])
    return replace(
        tree,
        request_start=before[tree.request_start],
        request_end=before[tree.request_end],
        order=sequences.of(tree.order),
        node_of=sequences.spread(tree.node_of),
    )
