"""Speed of the prefix tree's stages, as JSON on standard output.

    python benchmarks/tree_build.py [--requests 10000,100000,1000000] [--prompt-tokens 500]

Prompts share as a mixed offline job's do: task families with a system prompt each, a few hundred
few-shot prefixes or documents below it, and a question of its own per request; about 35 % of prompt
tokens can be shared. All in one process on one core; each size runs once warm, compilation aside.
``exponent`` is the slope of log seconds over log requests from the smallest to the largest size.
"""

import argparse
import json
import math
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.requests.columns import Requests
from blendplan.tree.annotate import annotate
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.layout import sort_tree
from blendplan.tree.sharing import optimal_sharing
from blendplan.tree.splitting.split import split_tree

# System prompt tokens, prefixes below it, their mean tokens, mean question tokens, mean output
# tokens and share of the requests: short answers, chat, summaries of documents, long generation.
T = TypeVar("T")

FAMILIES = np.array(
    [
        [40, 57, 500, 90, 3, 0.25],
        [120, 1, 0, 380, 250, 0.45],
        [200, 4000, 700, 40, 180, 0.1],
        [30, 1, 0, 420, 2500, 0.2],
    ]
)


def mixed_requests(
    count: int, prompt_tokens: float, seed: int = 0
) -> tuple[Requests, NDArray[np.float64]]:
    """Requests of the four families in random order, and their output lengths in tokens."""
    rng = np.random.default_rng(seed)
    family = rng.choice(len(FAMILIES), count, p=FAMILIES[:, 5])
    system, branches, prefix, question, output, _ = FAMILIES[family].T
    scale = prompt_tokens / 500
    branch = (rng.random(count) * branches).astype(np.int64)
    # The prefix of a branch has one length wherever it is used.
    spread = np.random.default_rng(seed + 1).uniform(0.5, 1.5, (len(FAMILIES), 4000))
    system_tokens = np.rint(system * scale).astype(np.int64)
    shared = system_tokens + np.rint(prefix * scale * spread[family, branch]).astype(np.int64)
    own = 1 + np.rint(question * scale * rng.lognormal(-0.18, 0.6, count)).astype(np.int64)
    offsets = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(shared + own, out=offsets[1:])
    tokens = np.empty(offsets[-1], dtype=np.int32)
    _fill(tokens, offsets, family, branch, system_tokens, shared, seed)
    unknown = np.full(count, -1, dtype=np.int32)
    rows = np.arange(count)
    ids = pa.array(rows).cast(pa.large_string())
    requests = Requests(ids, rows, tokens, offsets, unknown, unknown)
    return requests, np.maximum(1.0, np.rint(output * rng.lognormal(-0.3, 0.8, count)))


@kernel
def _fill(
    tokens: NDArray[np.int32],
    offsets: NDArray[np.int64],
    family: NDArray[np.int64],
    branch: NDArray[np.int64],
    system_tokens: NDArray[np.int64],
    shared: NDArray[np.int64],
    seed: int,
) -> None:
    """Token ids below 2^17 from a counter: equal where family, branch and position are."""
    for row in range(len(family)):
        for position in range(offsets[row + 1] - offsets[row]):
            if position < system_tokens[row]:
                key = family[row]
            elif position < shared[row]:
                key = 4 + 4096 * family[row] + branch[row]
            else:
                key = 2**20 + row
            x = np.uint64(key * 1_000_003 + position * 7_919 + seed)
            x = (x ^ (x >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            tokens[offsets[row] + position] = np.int32(x >> np.uint64(47))


def datasheet_demand(
    prompt_tokens: NDArray[np.int32], output_tokens: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute and memory seconds of Llama-3.1-8B on an A100-80G by the paper's formulas (4.1)."""
    p, d = prompt_tokens.astype(np.float64), output_tokens
    compute_s = 2 * (p + d) * 8.0e9 / 312e12
    memory_s = (p * d + d * d / 2) * 8 * 128 * 32 * 4 / 2.039e12
    return compute_s, memory_s


def measure(count: int, prompt_tokens: float) -> dict[str, float]:
    """Seconds of each stage, and what came out."""
    requests, output_tokens = mixed_requests(count, prompt_tokens)
    lengths = requests.prompt_tokens
    demand = datasheet_demand(lengths, output_tokens)
    row: dict[str, float] = {"requests": count, "prompt_tokens": len(requests.token_ids)}

    def timed(stage: str, run: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = run()
        row[f"{stage}_s"] = round(time.perf_counter() - start, 4)
        return result

    tree = timed("build", lambda: build_tree(requests))
    totals = timed(
        "annotate", lambda: annotate(tree, lengths, *demand, output_tokens=output_tokens)
    )
    timed("sort", lambda: sort_tree(tree, totals.density))
    split = timed("split", lambda: split_tree(tree, lengths, *demand, output_tokens=output_tokens))
    timed("block_chains", lambda: block_chains(tree, requests, 16))
    row["nodes"] = tree.node_count
    row["build_mtokens_per_s"] = round(len(requests.token_ids) / row["build_s"] / 1e6, 1)
    row["sharing"] = round(optimal_sharing(tree), 4)
    row["sharing_after_split"] = round(optimal_sharing(split), 4)
    return row


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", default="10000,100000", help="sizes, comma-separated")
    parser.add_argument("--prompt-tokens", type=float, default=500, help="mean prompt length")
    options = parser.parse_args()
    sizes = [int(size) for size in options.requests.split(",")]
    start = time.perf_counter()
    measure(200, options.prompt_tokens)
    result: dict[str, object] = {"warm_up_s": round(time.perf_counter() - start, 2)}
    rows = [measure(size, options.prompt_tokens) for size in sizes]
    result["sizes"] = rows
    if len(rows) > 1:
        growth = math.log(rows[-1]["requests"] / rows[0]["requests"])
        result["exponent"] = {
            key: round(math.log(rows[-1][key] / rows[0][key]) / growth, 3)
            for key in rows[0]
            if key.endswith("_s") and key != "build_mtokens_per_s"
        }
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
