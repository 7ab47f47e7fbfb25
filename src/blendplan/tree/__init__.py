"""Prefix tree: which requests share which prompt prefix, in flat arrays.

In go `Requests` and, for sorting and splitting, what each request costs; out comes a `PrefixTree`
whose depth-first order is a schedule's raw material. Knows nothing of GPUs.
"""

from blendplan.tree.annotate import NodeTotals, annotate
from blendplan.tree.blocks import BlockChains, block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.families import sharing_families
from blendplan.tree.graph import to_networkx
from blendplan.tree.prefix_tree import PrefixTree
from blendplan.tree.sharing import (
    divided_prompt_tokens,
    optimal_sharing,
    prefix_tokens_unique,
    shared_prefix_tokens,
)
from blendplan.tree.sort import sort_tree
from blendplan.tree.split import split_tree

__all__ = [
    "BlockChains",
    "NodeTotals",
    "PrefixTree",
    "annotate",
    "block_chains",
    "build_tree",
    "divided_prompt_tokens",
    "optimal_sharing",
    "prefix_tokens_unique",
    "shared_prefix_tokens",
    "sharing_families",
    "sort_tree",
    "split_tree",
    "to_networkx",
]
