"""Request files from public traces.

    python benchmarks/trace_requests.py --data DIR -o DIR [--only mmlu gsm8k] [--limit N]

``DIR`` (or ``BLENDPLAN_DATA``) holds the traces as Parquet and JSON lines. Texts become OpenAI
batch lines; lengths become Parquet with token ids, which are random where the source has lengths
only, and made from the block ids where it has those, so that prefixes are shared as in the trace.
The same data gives the same files.
"""

import argparse
import gzip
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from benchmarks.synthetic.pools import traces_folder
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.write import write_requests
from blendplan.whole_file import replacing

VOCABULARY = 128_000
BLOCK_TOKENS = 512  # of the Mooncake traces
MMLU_OUTPUT_TOKENS = 2  # the letter and the end
_ROWS_AT_ONCE = 256

LENGTHS = {
    "azure_code": "azure_llm_2023_code",
    "azure_conv": "azure_llm_2023_conv",
    "burstgpt": "burstgpt_sample_8000",
    "sharegpt": "sharegpt_lengths",
    "bwb": "bwb_lengths",
}
BLOCKS = ("mooncake_conversation", "mooncake_synthetic")


def mmlu_lines(data: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """MMLU, five solved questions of the subject before each question; 14,042 batch lines."""
    with gzip.open(data / "mmlu_5shot_prefixes.jsonl.gz", "rt", encoding="utf-8") as file:
        prefixes = {line["subject"]: line["prefix_text"] for line in map(json.loads, file)}
    questions = _rows(data / "mmlu_test_questions.parquet", limit)
    for row in questions.select(["subject", "index", "question_text"]).to_pylist():
        yield {
            "custom_id": f"mmlu-{row['subject']}-{row['index']}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {
                "model": "any",
                "prompt": prefixes[row["subject"]] + row["question_text"],
                "max_tokens": MMLU_OUTPUT_TOKENS,
                "temperature": 0,
            },
            "output_tokens": MMLU_OUTPUT_TOKENS,
        }


def gsm8k_lines(data: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """GSM8K questions as chat, the answer as long as the worked one; 8,792 batch lines."""
    questions = _rows(data / "gsm8k.parquet", limit)
    for index, row in enumerate(questions.to_pylist()):
        yield {
            "custom_id": f"gsm8k-{row['split']}-{index}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "any",
                "messages": [{"role": "user", "content": row["question"]}],
                "max_tokens": 1024,
            },
            "output_tokens": row["answer_llama2_tokens"],
        }


def requests_of_lengths(data: Path, name: str, limit: int | None = None, seed: int = 0) -> Requests:
    """A trace of lengths with random token ids; no two prompts share a prefix."""
    table = _rows(data / f"{LENGTHS[name]}.parquet", limit)
    lengths = table["prompt_tokens"].to_numpy().astype(np.int64)
    generator = np.random.default_rng(seed)
    token_ids = generator.integers(0, VOCABULARY, int(lengths.sum()), np.int32)
    offsets = _offsets(lengths)
    token_ids[offsets[:-1]] = np.arange(len(lengths)) % VOCABULARY
    return _requests(name, token_ids, offsets, table)


def requests_of_blocks(data: Path, name: str, limit: int | None = None) -> Requests:
    """A trace of block ids; prompts share their blocks of 512 tokens where the ids are equal."""
    table = _rows(data / f"{name}.parquet", limit)
    offsets = _offsets(table["prompt_tokens"].to_numpy().astype(np.int64))
    token_ids = np.empty(offsets[-1], np.int32)
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        blocks = table["block_ids"].slice(start, _ROWS_AT_ONCE).combine_chunks()
        ends = offsets[start : start + len(blocks) + 1]
        token_ids[ends[0] : ends[-1]] = tokens_of_blocks(blocks, np.diff(ends))
    return _requests(name, token_ids, offsets, table)


def build(
    data: Path, output: Path, only: list[str] | None = None, limit: int | None = None
) -> Iterator[tuple[str, Path, int]]:
    """Write the request files one by one; yields the name, the path and the number of requests."""
    texts = {"mmlu": mmlu_lines, "gsm8k": gsm8k_lines}
    for name, lines in texts.items():
        if only is None or name in only:
            path = output / f"{name}.jsonl.gz"
            yield name, path, _write_lines(path, lines(data, limit))
    columns: dict[str, Callable[[Path, str, int | None], Requests]] = {}
    columns |= dict.fromkeys(LENGTHS, requests_of_lengths)
    columns |= dict.fromkeys(BLOCKS, requests_of_blocks)
    for name, make in columns.items():
        if only is None or name in only:
            requests = make(data, name, limit)
            path = output / f"{name}.parquet"
            write_requests(requests, path)
            yield name, path, len(requests)


def _rows(path: Path, limit: int | None) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise BlendplanError(f"{path} does not exist; give the folder of the traces") from error
    return table if limit is None else table.slice(0, limit)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def tokens_of_blocks(blocks: pa.ListArray, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Token ids of prompts with the given lengths; the last block of each may be cut."""
    ids = blocks.flatten().to_numpy().astype(np.uint64)
    last = np.cumsum(blocks.value_lengths().to_numpy()) - 1
    sizes = np.full(len(ids), BLOCK_TOKENS)
    sizes[last] -= (blocks.value_lengths().to_numpy() * BLOCK_TOKENS - lengths).astype(np.int64)
    place = np.arange(int(sizes.sum())) - np.repeat(_offsets(sizes)[:-1], sizes)
    block = np.repeat(ids, sizes)
    mixed = block * np.uint64(BLOCK_TOKENS) + place.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    # The first token is the block's own, so that different blocks differ from the start.
    tokens = np.where(place == 0, block, mixed) % np.uint64(VOCABULARY)
    return tokens.astype(np.int64)


def _requests(
    name: str, token_ids: NDArray[np.int32], offsets: NDArray[np.int64], table: pa.Table
) -> Requests:
    rows = np.arange(table.num_rows, dtype=np.int64)
    return Requests(
        ids=pc.binary_join_element_wise(name, pa.array(rows).cast(pa.string()), "-").cast(
            pa.large_string()
        ),
        source_row=rows,
        token_ids=token_ids,
        offsets=offsets,
        output_tokens=table["output_tokens"].to_numpy().astype(np.int32),
        max_tokens=np.full(len(rows), -1, np.int32),
    )


def _write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    count = 0
    with (
        replacing(path) as temporary,
        pa.output_stream(str(temporary), compression="gzip") as file,
    ):
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
            count += 1
    return count


def main() -> None:
    """Build all files that are asked for."""
    names = ["mmlu", "gsm8k", *LENGTHS, *BLOCKS]
    parser = argparse.ArgumentParser(description="Make request files from public traces.")
    parser.add_argument(
        "--data", type=traces_folder, default=os.environ.get("BLENDPLAN_DATA"), metavar="DIR"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME")
    parser.add_argument("--limit", type=int, help="requests of each trace")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data, the folder of the traces, or set BLENDPLAN_DATA")
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        for name, path, count in build(
            arguments.data, arguments.output, arguments.only, arguments.limit
        ):
            print(json.dumps({"name": name, "path": str(path), "requests": count}), flush=True)
    except BlendplanError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
