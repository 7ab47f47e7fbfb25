"""Words of a prompt's beginning and end as features."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.lengths import words
from blendplan.lengths.features import request_features
from blendplan.lengths.words import BUCKETS, WINDOW_TOKENS, prompts_of, word_features
from blendplan.requests.columns import Requests, select
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.tokens import estimate_tokens
from blendplan.tree.build import build_tree
from tests.oracles.slow_words import buckets_of, components_of, words_of_bytes, words_of_tokens

TEXTS = st.text(
    st.sampled_from("aAbZ09 \t\n.,?é漢字ひ🙂"), min_size=1, max_size=3 * WINDOW_TOKENS * 4
)


def of_texts(texts: list[str]) -> Requests:
    """Requests without a tokenizer: four bytes a token."""
    token_ids, lengths = estimate_tokens(pa.array(texts, pa.large_string()))
    made = requests_from_lists([[1]] * len(texts))
    return replace(
        made,
        token_ids=token_ids,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        estimated_tokens=True,
    )


def found(requests: Requests) -> list[set[int]]:
    """Buckets of each prompt by the kernel, each once."""
    prompts = prompts_of(requests, build_tree(requests))
    buckets, offsets = words._buckets(prompts.units, prompts.start, prompts.end, prompts.window)
    parts = [part.tolist() for part in np.split(buckets, offsets[1:-1])]
    assert all(len(set(part)) == len(part) for part in parts)
    return [set(part) for part in parts]


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_words_of_texts_equal_the_slow_ones(texts: list[str]) -> None:
    requests = of_texts(texts)
    tree = build_tree(requests)
    shared = int(tree.depth[np.flatnonzero(tree.request_end - tree.request_start == len(tree))[-1]])
    window = 4 * WINDOW_TOKENS
    wanted = []
    for text in texts:
        packed = text.encode()
        packed += b"\0" * (-len(packed) % 4)
        packed = packed[4 * shared :]
        wanted.append(
            buckets_of([words_of_bytes(packed[:window]), words_of_bytes(packed[-window:])], BUCKETS)
        )
    assert found(requests) == wanted


@settings(max_examples=30)
@given(
    st.lists(
        st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3 * WINDOW_TOKENS),
        min_size=2,
        max_size=4,
    )
)
def test_words_of_token_ids_equal_the_slow_ones(prompts: list[list[int]]) -> None:
    # The first tokens differ, so no prefix is shared by all.
    prompts = [[i, *prompt] for i, prompt in enumerate(prompts)]
    wanted = [
        buckets_of(
            [words_of_tokens(prompt[:WINDOW_TOKENS]), words_of_tokens(prompt[-WINDOW_TOKENS:])],
            BUCKETS,
        )
        for prompt in prompts
    ]
    assert found(requests_from_lists(prompts)) == wanted


def test_case_and_digits_do_not_matter() -> None:
    one, other, third = found(of_texts(["x", "Answer 17 in WORDS", "answer 42 in words"]))[0:3]
    assert other == third != one


def test_features_are_the_weighted_directions_of_the_words() -> None:
    rng = np.random.default_rng(0)
    requests = requests_from_lists([rng.integers(0, 9, size).tolist() for size in range(1, 40)])
    tree = build_tree(requests)
    prompts = prompts_of(requests, tree)
    rare, directions = words._components(prompts, tree.order, 6)
    slow = components_of(found(requests), rare, directions)
    assert word_features(requests, tree, 6) == pytest.approx(slow, abs=1e-5)


def test_components_tell_kinds_of_prompts_apart() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 2, 200)
    subjects = [str(rng.choice(["rivers", "metals", "trade", "birds"])) for _ in kinds]
    asked = ["Answer with one letter.", "Write a long report."]
    requests = of_texts(
        [f"About {s}. {asked[kind]}" for s, kind in zip(subjects, kinds, strict=True)]
    )
    features = word_features(requests, build_tree(requests), 4)
    centers = [features[kinds == kind].mean(axis=0) for kind in range(2)]
    distance = [np.linalg.norm(features - center, axis=1) for center in centers]
    assert ((distance[1] < distance[0]) == (kinds == 1)).all()


def test_features_go_with_the_requests() -> None:
    rng = np.random.default_rng(2)
    prompts = [[7, 7, *rng.integers(0, 5, rng.integers(1, 90)).tolist()] for _ in range(300)]
    requests = requests_from_lists(prompts, max_tokens=rng.integers(1, 99, 300))
    features = request_features(requests, build_tree(requests))
    order = rng.permutation(300)
    moved = select(requests, order)
    assert (request_features(moved, build_tree(moved)) == features[order]).all()


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    requests = requests_from_lists([rng.integers(0, 50, 30).tolist() for _ in range(500)])
    tree = build_tree(requests)
    together = word_features(requests, tree, 8)
    monkeypatch.setattr(words, "_CHUNK", 7)
    assert (word_features(requests, tree, 8) == together).all()


def test_prompts_that_are_all_alike_have_no_words() -> None:
    requests = requests_from_lists([[1, 2, 3]] * 5)
    features = request_features(requests, build_tree(requests))
    assert np.isfinite(features).all()
    assert (features == features[0]).all()
