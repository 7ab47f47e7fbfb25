"""Where the requests of a mixture come from: texts, lengths and block ids of public traces.

Every source keeps some of its prompts apart for an *earlier* job of the same kind, so that results
of the past never hold an answer to a prompt of today.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.trace_requests import BLOCKS, LENGTHS, VOCABULARY, tokens_of_blocks
from numpy.typing import NDArray

from blendplan.errors import BlendplanError

# Of the prompts of every source.
EARLIER_SHARE = 0.15
MOST_TOKENS = 32_768
_EXAMPLES = 8  # of GSM8K in its few-shot head

_ANSWERS = (
    *("t0_ag_news", "t0_dbpedia_14", "t0_imdb", "t0_rotten_tomatoes", "t0_paws", "t0_glue_mrpc"),
    *("t0_glue_qqp", "t0_quarel", "t0_quartz", "t0_commonsense_qa", "t0_sciq", "t0_wiki_qa"),
    *("t0_wiki_hop", "t0_hotpotqa", "t0_quoref", "t0_wiqa", "t0_adversarial_qa", "t0_duorc"),
    *("t0_common_gen", "t0_dream"),
)
_LANGUAGES = ("de-en", "en-cs", "en-de", "en-he", "en-ja", "en-ru", "en-uk", "en-zh", "zh-en")
_REASONING = ("aime24", "amc23", "math500", "minerva_math")
_COT = (*_REASONING, "olympiadbench")

TEXTS: dict[str, tuple[str, ...]] = {
    "classify": _ANSWERS,
    "translate": tuple(f"wmt23_{pair}" for pair in _LANGUAGES),
    "chat": (
        *("alpaca_eval", "alpaca_eval_concise", "alpaca_eval_verbose", "lima_test"),
        *("mt_bench_turn1", "mt_bench_turn2", "self_instruct_user", "ja_vicuna_qa"),
    ),
    "maths": (
        *("zeroeval_gsm8k", "zeroeval_math_l5", "zeroeval_numersense"),
        *(f"skythought_{name}_cot" for name in _COT),
    ),
    "code": (
        *("zeroeval_crux", "humaneval_py", "humaneval_rs", "mbpp_py", "mbpp_rs"),
        "leetcode_hard_py",
    ),
    "reason": tuple(f"skythought_{name}_reasoning" for name in _REASONING),
    "summarise": (
        *("t0_cnn_dailymail", "t0_multi_news", "t0_xsum", "t0_wiki_bio"),
        *("leval_gov_report_summ", "leval_patent_summ"),
    ),
    "documents": (
        *("leval_coursera", "leval_quality", "leval_scientific_qa", "leval_financial_qa"),
    ),
}
"""Families of `prompts_outputs.parquet` by what is asked for."""

STATED = ("long_reasoning", "reports")
WORDED = (*TEXTS, "mmlu", "mmlu_plain", "gsm8k", "gsm8k_fewshot")
SOURCES = (*WORDED, *LENGTHS, *STATED, *BLOCKS)

# Sources whose prompts begin with what others begin with, for more than a line.
WITH_HEADS = ("translate", "reason", "documents", "mmlu", "gsm8k_fewshot", *BLOCKS)


@dataclass(frozen=True)
class Drawn:
    """k requests of one source: their prompts as text or as token ids, and their output lengths.

    Attributes:
        output_tokens: int32 [k].
        texts: k prompts; None for a source without words.
        prompts: k prompts of token ids; None for a source with words.
    """

    output_tokens: NDArray[np.int32]
    texts: list[str] | None = None
    prompts: list[NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.output_tokens)

    def take(self, rows: NDArray[np.int64]) -> "Drawn":
        """Some of them."""
        return Drawn(
            self.output_tokens[rows],
            None if self.texts is None else [self.texts[row] for row in rows],
            None if self.prompts is None else [self.prompts[row] for row in rows],
        )


def draw(
    source: str,
    traces: Path,
    count: int,
    rng: np.random.Generator,
    *,
    families: Sequence[str] = (),
    earlier: bool = False,
) -> Drawn:
    """Requests of one source, at most `count` of them: no row of a trace is used twice.

    Args:
        source: one of `SOURCES`, or ``texts`` for the families alone.
        traces: folder with the trace files.
        count: how many.
        rng: decides which, and in what order; the same state for the job and the earlier one.
        families: of a source in `TEXTS`; all of its families without any.
        earlier: from the prompts that are kept for an earlier job.

    Raises:
        BlendplanError: no such source, or a file that is missing.
    """
    if source in TEXTS or source == "texts":
        return _texts(traces, families or TEXTS[source], count, rng, earlier)
    if source in ("mmlu", "mmlu_plain"):
        return _mmlu(traces, count, rng, earlier, heads=source == "mmlu")
    if source in ("gsm8k", "gsm8k_fewshot"):
        return _gsm8k(traces, count, rng, earlier, head=source == "gsm8k_fewshot")
    if source in LENGTHS:
        return _lengths(traces, LENGTHS[source], count, rng, earlier)
    if source in STATED:
        return _STATED[source](count, rng.spawn(1)[0] if earlier else rng)
    if source in BLOCKS:
        return _histories(traces, source, count, rng, earlier)
    raise BlendplanError(f"no source {source!r}; give one of {', '.join(SOURCES)}")


def _part(groups: int, rng: np.random.Generator, earlier: bool) -> NDArray[np.int64]:
    """Groups of rows in random order: those of the job, or those kept for the earlier one."""
    order = rng.permutation(groups)
    kept = max(1, round(EARLIER_SHARE * groups))
    return order[:kept] if earlier else order[kept:]


def _texts(
    traces: Path, families: Sequence[str], count: int, rng: np.random.Generator, earlier: bool
) -> Drawn:
    """Every prompt once, answered by any of its models, before a prompt comes again."""
    table = _prompts_outputs(traces)
    rows = np.flatnonzero(np.isin(table["family"], families))
    _, prompt = np.unique(table["prompt_number"][rows], return_inverse=True)
    part = np.isin(prompt, _part(int(prompt.max()) + 1, rng, earlier))
    rows, prompt = rows[part], prompt[part]
    shuffled = rng.permutation(len(rows))
    rows, prompt = rows[shuffled], prompt[shuffled]
    # How often the prompt has been drawn before.
    by_prompt = np.argsort(prompt, kind="stable")
    starts = np.searchsorted(prompt[by_prompt], prompt[by_prompt], side="left")
    before = np.empty(len(rows), np.int64)
    before[by_prompt] = np.arange(len(rows)) - starts
    rows = rows[np.argsort(before, kind="stable")[:count]]
    return Drawn(table["output_tokens"][rows], texts=[table["prompt"][row] for row in rows])


@lru_cache(maxsize=1)
def _prompts_outputs(traces: Path) -> dict[str, NDArray[Any]]:
    table = _read(traces / "prompts_outputs.parquet")
    prompts = np.array(table["prompt"], dtype=object)
    numbers: dict[str, int] = {}
    return {
        "family": np.array(table["family"]),
        "prompt": prompts,
        "prompt_number": np.array([numbers.setdefault(text, len(numbers)) for text in prompts]),
        "output_tokens": np.array(table["output_tokens"], np.int32),
    }


def _mmlu(traces: Path, count: int, rng: np.random.Generator, earlier: bool, heads: bool) -> Drawn:
    """Exam questions, behind five solved ones of the subject or bare; 1 to 8 output tokens."""
    table = _read(traces / "mmlu_test_questions.parquet")
    prefixes = dict.fromkeys(table["subject"], "")
    if heads:
        path = traces / "mmlu_5shot_prefixes.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            prefixes |= {line["subject"]: line["prefix_text"] for line in map(json.loads, file)}
    # Some questions are asked twice.
    once = np.array(sorted({text: row for row, text in enumerate(table["question_text"])}.values()))
    rows = once[_part(len(once), rng, earlier)[:count]]
    texts = [prefixes[table["subject"][row]] + table["question_text"][row] for row in rows]
    return Drawn(rng.integers(1, 9, len(rows)).astype(np.int32), texts=texts)


def _gsm8k(traces: Path, count: int, rng: np.random.Generator, earlier: bool, head: bool) -> Drawn:
    """School mathematics, as long as the worked answer; some solved examples first."""
    table = _read(traces / "gsm8k.parquet")
    asked, answered = table["question"], table["answer"]
    examples = range(_EXAMPLES if head else 0)
    shots = "".join(f"Question: {asked[row]}\nAnswer: {answered[row]}\n\n" for row in examples)
    rows = _part(len(asked) - _EXAMPLES, rng, earlier)[:count] + _EXAMPLES
    texts = [f"{shots}Question: {asked[row]}\nAnswer:" if head else asked[row] for row in rows]
    return Drawn(np.array(table["answer_llama2_tokens"], np.int32)[rows], texts=texts)


def _lengths(traces: Path, name: str, count: int, rng: np.random.Generator, earlier: bool) -> Drawn:
    """Lengths of a trace with random token ids."""
    table = pq.read_table(_existing(traces / f"{name}.parquet"))
    prompt = table["prompt_tokens"].to_numpy().astype(np.int32)
    output = table["output_tokens"].to_numpy().astype(np.int32)
    rows = np.flatnonzero(
        (prompt >= 1) & (output >= 1) & (np.maximum(prompt, output) <= MOST_TOKENS)
    )
    rows = rows[_part(len(rows), rng, earlier)[:count]]
    return Drawn(output[rows], prompts=_random_prompts(prompt[rows], rng))


def _long_reasoning(count: int, rng: np.random.Generator) -> Drawn:
    """Log-t output lengths, median 850 and mean about 1,500 tokens, to questions."""
    logarithm = np.log(850.0) + 0.75 * rng.standard_t(4, count)
    output = np.clip(np.exp(logarithm), 20, MOST_TOKENS).astype(np.int32)
    prompt = np.clip(rng.lognormal(np.log(150), 0.5, count), 20, 2000).astype(np.int32)
    return Drawn(output, prompts=_random_prompts(prompt, rng))


def _reports(count: int, rng: np.random.Generator) -> Drawn:
    """Summaries of 100 to 400 tokens of texts of some thousand."""
    prompt = np.clip(rng.lognormal(np.log(1800), 0.6, count), 200, 12_000).astype(np.int32)
    output = np.clip(rng.lognormal(np.log(160), 0.4, count), 20, 1000).astype(np.int32)
    return Drawn(output, prompts=_random_prompts(prompt, rng))


_STATED: dict[str, Callable[[int, np.random.Generator], Drawn]] = {
    "long_reasoning": _long_reasoning,
    "reports": _reports,
}


def _histories(
    traces: Path, name: str, count: int, rng: np.random.Generator, earlier: bool
) -> Drawn:
    """Turns of whole conversations, which share their histories by block ids."""
    table = pq.read_table(_existing(traces / f"{name}.parquet"))
    prompt = table["prompt_tokens"].to_numpy().astype(np.int64)
    blocks = table["block_ids"].combine_chunks()
    # The first block is everybody's; the second tells conversations apart.
    key = np.array([ids[1] if len(ids) > 1 else -1 - row for row, ids in
                    enumerate(blocks.to_pylist())])  # fmt: skip
    _, talk, turns = np.unique(key, return_inverse=True, return_counts=True)
    usable = (turns[talk] >= 3) & (prompt <= MOST_TOKENS)
    talks = np.unique(talk[usable])
    order = talks[_part(len(talks), rng, earlier)]
    place = np.full(len(turns), -1, np.int64)
    place[order] = np.arange(len(order))
    rows = np.flatnonzero(usable & (place[talk] >= 0))
    rows = rows[np.argsort(place[talk[rows]], kind="stable")[:count]]
    prompts = []
    for row in rows.tolist():
        tokens = tokens_of_blocks(blocks.slice(row, 1), prompt[row : row + 1])
        prompts.append(tokens.astype(np.int32))
    return Drawn(table["output_tokens"].to_numpy()[rows].astype(np.int32), prompts=prompts)


def _random_prompts(
    lengths: NDArray[np.int32], rng: np.random.Generator
) -> list[NDArray[np.int32]]:
    tokens = rng.integers(0, VOCABULARY, int(lengths.sum(dtype=np.int64)), np.int32)
    return np.split(tokens, np.cumsum(lengths, dtype=np.int64)[:-1])


def _read(path: Path) -> dict[str, list[Any]]:
    return pq.read_table(_existing(path)).to_pydict()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BlendplanError(f"no trace file {path}; give the folder that holds it")
    return path
