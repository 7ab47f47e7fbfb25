"""Known facts about public traces, found again by the tree."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarks.trace_requests import BLOCK_TOKENS, mmlu_lines, requests_of_blocks

from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import optimal_sharing, prefix_tokens_unique
from tests.support.trace_data import TRACES, needs_traces

pytestmark = needs_traces


def test_mmlu_shares_86_percent_of_its_prompt_tokens(tmp_path: Path) -> None:
    """Table 4 of the paper; with four bytes a token the 14,042 prompts give 0.862."""
    file = tmp_path / "mmlu.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in mmlu_lines(TRACES))
    requests = read_requests(file)
    assert requests.estimated_tokens
    assert len(requests) == 14_042
    assert optimal_sharing(build_tree(requests)) == pytest.approx(0.86, abs=0.005)


def test_mmlu_shares_84_percent_of_its_llama2_tokens() -> None:
    """By the token counts of the data, without what questions of a subject share by chance.

    Prompts made of one token per Llama-2 token: a subject's prefix, then tokens of the question's
    own.
    """
    with gzip.open(TRACES / "mmlu_5shot_prefixes.jsonl.gz", "rt", encoding="utf-8") as file:
        subjects = {line["subject"]: line for line in map(json.loads, file)}
    questions = pq.read_table(TRACES / "mmlu_test_questions.parquet").to_pylist()
    number = {subject: i for i, subject in enumerate(subjects)}
    prompts = [
        np.concatenate(
            [
                np.full(subjects[question["subject"]]["prefix_llama2_tokens"], number[subject]),
                np.full(question["question_llama2_tokens"], 1000 + row),
            ]
        )
        for row, question in enumerate(questions)
        for subject in [question["subject"]]
    ]
    tree = build_tree(requests_from_lists(prompts))
    prefixes = sum(line["prefix_llama2_tokens"] for line in subjects.values())
    own = sum(question["question_llama2_tokens"] for question in questions)
    assert prefix_tokens_unique(tree) == prefixes + own
    assert optimal_sharing(tree) == pytest.approx(0.845, abs=0.001)


@pytest.mark.parametrize(
    ("name", "limit", "sharing"),
    [("mooncake_conversation", 3000, 0.320), ("mooncake_synthetic", 3993, 0.651)],
)
def test_mooncake_shares_what_its_block_ids_say(name: str, limit: int, sharing: float) -> None:
    """Equal ids mean equal prefixes up to and including the block; the last one may be partial."""
    requests = requests_of_blocks(TRACES, name, limit=limit)
    table = pq.read_table(TRACES / f"{name}.parquet").slice(0, limit)
    tokens_of: dict[int, int] = {}
    requests_with: Counter[int] = Counter()
    total = 0
    for prompt_tokens, ids in zip(
        table["prompt_tokens"].to_pylist(), table["block_ids"].to_pylist(), strict=True
    ):
        total += prompt_tokens
        for place, block in enumerate(ids):
            size = min(BLOCK_TOKENS, prompt_tokens - place * BLOCK_TOKENS)
            assert tokens_of.setdefault(block, size) == size
            requests_with[block] += size == BLOCK_TOKENS
    tree = build_tree(requests)
    assert optimal_sharing(tree) == pytest.approx(1 - sum(tokens_of.values()) / total, abs=1e-6)
    assert optimal_sharing(tree) == pytest.approx(sharing, abs=0.001)

    chains = block_chains(tree, requests, BLOCK_TOKENS)
    shared = {block: count for block, count in requests_with.items() if count > 1}
    assert chains.count == len(shared)
    assert len(chains.chain_ids) == sum(shared.values())
