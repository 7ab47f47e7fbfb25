"""A made-up request file of any size, for measuring speed and memory.

    python benchmarks/million.py -n 1000000 -o reqs.parquet [--prompt-tokens 500] [--seed 0]

Prompts are 500 tokens on average and share prefixes on three levels, as jobs of many teams do: a
house prompt, a task below it, examples below that, each chosen with Zipf's weights, so that a few
are met all the time and many now and then. About 35 % of the prompt tokens are shared. Two answers
of three are short, the third is long with a heavy tail. Row groups are made and written one by one,
so memory does not grow with the number of requests.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from blendplan.whole_file import replacing

VOCABULARY = 128_000
ROWS_AT_ONCE = 1 << 15
CHILDREN = (40, 25, 8)  # house prompts, tasks of each, sets of examples of each task
LEVEL_SHARE = (0.2, 0.25, 0.3)  # mean length of a segment of each level, in mean prompts
SHARING_REQUESTS = 0.75  # the others have no prefix in common with anyone
SCHEMA = pa.schema(
    {"id": pa.string(), "prompt_token_ids": pa.list_(pa.int32()), "output_tokens": pa.int32()}
)


class Prefixes:
    """The shared segments of all levels: their token ids, and where each segment lies.

    Attributes:
        tokens: int32 [total].
        starts, sizes: of each segment, per level; int64 [segments of the level] each.
    """

    def __init__(self, prompt_tokens: int, generator: np.random.Generator) -> None:
        counts = np.cumprod(CHILDREN)
        self.sizes = [
            1 + generator.gamma(4, share * prompt_tokens / 4, count).astype(np.int64)
            for share, count in zip(LEVEL_SHARE, counts, strict=True)
        ]
        ends = np.cumsum(np.concatenate(self.sizes))
        self.tokens = generator.integers(0, VOCABULARY, int(ends[-1]), np.int32)
        starts = ends - np.concatenate(self.sizes)
        self.starts = np.split(starts, np.cumsum(counts)[:-1])

    def choose(
        self, count: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and size of the segments of `count` prompts; int64 [count, 3], size 0 for none."""
        starts = np.zeros((count, len(CHILDREN)), np.int64)
        sizes = np.zeros_like(starts)
        depth = generator.integers(1, len(CHILDREN) + 1, count)
        depth[generator.random(count) >= SHARING_REQUESTS] = 0
        node = np.zeros(count, np.int64)
        for level, children in enumerate(CHILDREN):
            weights = 1 / np.arange(1, children + 1)
            child = generator.choice(children, count, p=weights / weights.sum())
            node = node * children + child
            starts[:, level] = self.starts[level][node]
            sizes[:, level] = np.where(depth > level, self.sizes[level][node], 0)
        return starts, sizes


def row_group(
    first: int, count: int, prompt_tokens: int, prefixes: Prefixes, generator: np.random.Generator
) -> pa.Table:
    """The requests `first` to `first` + `count` - 1."""
    starts, sizes = prefixes.choose(count, generator)
    shared = sizes.sum(axis=1)
    mean_shared = float(np.dot(np.cumsum(LEVEL_SHARE), np.full(3, 1 / 3))) * prompt_tokens
    own_mean = np.where(shared > 0, prompt_tokens - mean_shared, prompt_tokens)
    own = 1 + (generator.gamma(2, 1, count) * own_mean / 2).astype(np.int64)
    lengths = shared + own
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = generator.integers(0, VOCABULARY, int(offsets[-1]), np.int32)
    # Copy the segments over the random tokens: for each, a run of places and a run of sources.
    flat = sizes.ravel()
    run = np.arange(int(flat.sum())) - np.repeat(np.cumsum(flat) - flat, flat)
    within = np.cumsum(sizes, axis=1) - sizes
    places = np.repeat((offsets[:-1, None] + within).ravel(), flat) + run
    tokens[places] = prefixes.tokens[np.repeat(starts.ravel(), flat) + run]
    return pa.table(
        [
            pa.array([f"r{row}" for row in range(first, first + count)]),
            pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens)),
            pa.array(_output_lengths(count, generator)),
        ],
        schema=SCHEMA,
    )


def _output_lengths(count: int, generator: np.random.Generator) -> NDArray[np.int32]:
    """Two of three around 50 tokens, the third around 600 with a heavy tail."""
    short = generator.lognormal(np.log(50), 0.8, count)
    long = generator.lognormal(np.log(600), 0.9, count)
    chosen = np.where(generator.random(count) < 2 / 3, short, long)
    return np.clip(chosen, 1, 16_384).astype(np.int32)


def write(path: Path, count: int, prompt_tokens: int = 500, seed: int = 0) -> int:
    """Write `count` requests; returns the number of prompt tokens."""
    generator = np.random.default_rng(seed)
    prefixes = Prefixes(prompt_tokens, generator)
    total = 0
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", compression_level=1) as writer,
    ):
        for first in range(0, count, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, count - first)
            group = row_group(first, rows, prompt_tokens, prefixes, generator)
            total += len(group["prompt_token_ids"].combine_chunks().values)
            writer.write_table(group)
    return total


def main() -> None:
    """Write the file and say what it is as JSON."""
    parser = argparse.ArgumentParser(description="Write a made-up request file.")
    parser.add_argument("-n", "--requests", type=int, default=1_000_000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--prompt-tokens", type=int, default=500, help="mean length of a prompt")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    tokens = write(arguments.output, arguments.requests, arguments.prompt_tokens, arguments.seed)
    result = {
        "path": str(arguments.output),
        "requests": arguments.requests,
        "prompt_tokens": tokens,
        "prompt_tokens_mean": round(tokens / arguments.requests, 1),
        "file_bytes": arguments.output.stat().st_size,
        "wall_s": round(time.perf_counter() - start, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
