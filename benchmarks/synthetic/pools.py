"""`load_pool`: where request lengths come from, real traces and stated distributions."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.synthetic.distributions import (
    openvid_clip_lengths,
    openvid_lengths,
    wildchat_rows,
)
from benchmarks.synthetic.rows import Rows, plain_rows
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.names import unknown

_TRACE_FILES = {
    "azure-code": "azure_llm_2023_code.parquet",
    "azure-conv": "azure_llm_2023_conv.parquet",
    "burstgpt": "burstgpt_sample_8000.parquet",
    "bwb": "bwb_lengths.parquet",
    "sharegpt": "sharegpt_lengths.parquet",
}
_MMLU_QUESTIONS = "mmlu_test_questions.parquet"
_MMLU_PREFIXES = "mmlu_5shot_prefixes.jsonl.gz"
_CLIPS = "openvid_facts.json"
POOL_NAMES = (*_TRACE_FILES, "mmlu", "openvid", "openvid-clips", "wildchat")

# The answer's letter and the end of the text; with it MMLU has the density of the paper's table 4.
_MMLU_OUTPUT_TOKENS = 2
# Longer prompts or outputs fit the context of hardly any model (two in ten thousand of ShareGPT).
_MOST_TOKENS = 32_768


@dataclass(frozen=True)
class Pool:
    """A source of request lengths.

    Attributes:
        name: as `load_pool` knows it.
        draw: that many requests from it, drawn with a random generator.
        stated: whether lengths follow a stated distribution, not the rows of a trace.
    """

    name: str
    draw: Callable[[int, np.random.Generator], Rows]
    stated: bool = False


def traces_folder(data: Path | str) -> Path:
    """The folder of the trace files: ``data`` itself, or the folder ``traces`` in it."""
    inside = Path(data) / "traces"
    return inside if inside.is_dir() else Path(data)


def load_pool(name: str, traces: Path) -> Pool:
    """The pool of that name, or of a Parquet file with `prompt_tokens` and `output_tokens`.

    A trace is used as often as it takes: every row once, in random order, before any row again; of
    a part of it, every length has its share.

    Args:
        name: one of `POOL_NAMES`, or the path of a Parquet file.
        traces: folder with the trace files.

    Raises:
        BlendplanError: an unknown name, or a file that is missing or lacks a column.
    """
    if name == "openvid":
        return Pool(name, openvid_lengths, stated=True)
    if name == "openvid-clips":
        frames = _clip_frames(traces / _CLIPS)
        return Pool(name, lambda n, rng: openvid_clip_lengths(frames, n, rng), stated=True)
    if name == "wildchat":
        return Pool(name, wildchat_rows, stated=True)
    if name == "mmlu":
        return _repeated(name, _mmlu_rows(traces))
    if name in _TRACE_FILES:
        return _repeated(name, _trace_rows(traces / _TRACE_FILES[name]))
    if name.endswith(".parquet"):
        return _repeated(Path(name).stem, _trace_rows(Path(name)))
    raise BlendplanError(unknown("trace", name, POOL_NAMES))


def _repeated(name: str, rows: Rows) -> Pool:
    by_length = np.lexsort((rows.own_tokens, rows.prefix_tokens, rows.output_tokens))

    def draw(count: int, rng: np.random.Generator) -> Rows:
        rounds, rest = divmod(count, len(rows))
        # The last, partial round is spread evenly over the lengths, for means like the trace's.
        places = ((np.arange(rest) + rng.random()) * len(rows) / max(rest, 1)).astype(np.int64)
        whole = [rng.permutation(len(rows)) for _ in range(rounds)]
        return rows.take(np.concatenate([*whole, rng.permutation(by_length[places])]))

    return Pool(name, draw)


def _trace_rows(path: Path) -> Rows:
    table = _read(path, ("prompt_tokens", "output_tokens"))
    prompt, output = _ints(table, "prompt_tokens"), _ints(table, "output_tokens")
    usable = (prompt >= 1) & (output >= 1) & (np.maximum(prompt, output) <= _MOST_TOKENS)
    if not usable.any():
        raise BlendplanError(
            f"{path} has no row with 1 to {_MOST_TOKENS} prompt and output tokens; "
            "give another trace"
        )
    return plain_rows(prompt[usable], output[usable])


def _mmlu_rows(traces: Path) -> Rows:
    """All test questions; the five-shot prefix of a question's subject is its common prefix."""
    questions = _read(traces / _MMLU_QUESTIONS, ("subject", "question_llama2_tokens"))
    path = traces / _MMLU_PREFIXES
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            prefixes = [json.loads(line) for line in lines]
        tokens = {entry["subject"]: int(entry["prefix_llama2_tokens"]) for entry in prefixes}
        number = {subject: index for index, subject in enumerate(tokens)}
        group = [number[subject] for subject in questions["subject"].to_pylist()]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BlendplanError(f"{path} cannot be used ({error}); check the trace folder") from error
    own = _ints(questions, "question_llama2_tokens")
    return Rows(
        own_tokens=np.maximum(own, 1),
        output_tokens=np.full(len(own), _MMLU_OUTPUT_TOKENS, np.int32),
        group=np.array(group, np.int32),
        group_tokens=np.array(list(tokens.values()), np.int32),
    )


def _clip_frames(path: Path) -> NDArray[np.float64]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return np.array(facts["indicative_clip_frame_counts"]["values"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BlendplanError(f"{path} cannot be used ({error}); check the trace folder") from error


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    if not path.is_file():
        raise BlendplanError(f"no trace file {path}; give the folder that holds it")
    try:
        names = pq.read_schema(path).names
        missing = [name for name in columns if name not in names]
        if missing:
            raise BlendplanError(f"{path} has no column {missing[0]!r}, only {', '.join(names)}")
        return pq.read_table(path, columns=list(columns))
    except pa.ArrowException as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise BlendplanError(f"{path} cannot be read as Parquet ({reason})") from error


def _ints(table: pa.Table, name: str) -> NDArray[np.int32]:
    values = table[name].combine_chunks()
    if values.null_count or not pa.types.is_integer(values.type):
        raise BlendplanError(f"trace column {name!r} must hold an integer in every row")
    column: NDArray[np.int32] = values.to_numpy(zero_copy_only=False).astype(np.int32)
    return column
