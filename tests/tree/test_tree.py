"""The prefix tree against an obvious one made of dictionaries."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.layout import sort_tree
from blendplan.tree.sharing import optimal_sharing, prefix_tokens_unique, shared_prefix_tokens
from tests.oracles.tree import PROMPTS, Prompt, by_prefix, check_structure, oracle


@settings(max_examples=100)
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


@settings(max_examples=60)
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


@settings(max_examples=60)
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


def test_negative_token_ids_sort_as_numbers() -> None:
    """The built-in estimate makes them of bytes, and a prompt still sorts before its extensions."""
    prompts = [[-5], [-5, -(2**31)], [-(2**31)], [3], [-5, 0]]
    requests = requests_from_lists([[0] * len(prompt) for prompt in prompts])
    flat = np.array([token for prompt in prompts for token in prompt], dtype=np.int32)
    tree = build_tree(dataclasses.replace(requests, token_ids=flat))
    assert tree.order.tolist() == [2, 0, 1, 4, 3]
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 1]


def test_block_size_must_be_positive() -> None:
    requests = requests_from_lists([[1]])
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        block_chains(build_tree(requests), requests, 0)
