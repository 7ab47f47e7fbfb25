"""How well output lengths are predicted from a sample.

    python benchmarks/length_prediction.py --data DIR [--requests 100000] [--json FILE]

A mixture of MMLU, ShareGPT, Mooncake and BWB requests with their real lengths: MMLU shares the
prefix of its subject and Mooncake its blocks, the others a system prompt. 1 % and 5 % of it are
sampled by `choose_sample`; the rest is predicted by the paper's mean of the nearest subtree with a
sample and by ``sample:FILE``, see `lengths_from_prompts`. GSM8K, whose prompts are texts, is
predicted beside them. Errors are over the requests that were not sampled. ``reads`` is the sum of
p d + d^2 / 2, what decoding reads of the KV cache, from the predicted means; ``with the spread``
from the predicted outcomes. ``DIR`` holds the traces; ``BLENDPLAN_DATA`` names it otherwise.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic.mixture import Family, Mixture
from benchmarks.synthetic.pools import load_pool, traces_folder
from benchmarks.synthetic.prompts import write_prompts
from benchmarks.trace_requests import gsm8k_lines, requests_of_blocks

from blendplan.errors import BlendplanError
from blendplan.lengths.from_prompts import lengths_from_prompts
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.sample import choose_sample
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import Requests, without_lengths
from blendplan.requests.read import read_requests
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree

# Share of the requests that each source has; Mooncake's prompts are as long as 40 of the others.
SHARES = {"mmlu": 0.30, "sharegpt": 0.40, "bwb": 0.24, "mooncake": 0.06}
FRACTIONS = (0.01, 0.05)
PREDICTORS = ("nearest", "sample")
ERRORS = ("total", "reads", "reads_with_spread", "under_p50", "under_p90")
Row = dict[str, Any]


def main() -> None:
    """Print a table, and write all of it where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=traces_folder, default=os.environ.get("BLENDPLAN_DATA"))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=5, help="samples whose errors are averaged")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR, the folder with the traces, or set BLENDPLAN_DATA")
    data = traces_folder(arguments.data)
    mixed = mixture(data, arguments.requests)
    found: dict[str, Any] = {"requests": len(mixed)}
    found["errors"] = all_errors(mixed, arguments.seeds) + all_errors(texts(data), arguments.seeds)
    print(error_table(found["errors"]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def mixture(data: Path, requests: int, seed: int = 0) -> Requests:
    """The four sources in a shuffled order; ids begin with the source's name."""
    families = []
    for stream, name in enumerate(("mmlu", "sharegpt", "bwb")):
        rows = load_pool(name, data).draw(
            round(SHARES[name] * requests), np.random.default_rng((seed, stream))
        )
        families.append(Family(name, rows))
    made = write_prompts(Mixture(tuple(families), 0.0, 0.0, 0.0, 0.0), seed)
    blocks = requests_of_blocks(
        data, "mooncake_conversation", max(1, round(SHARES["mooncake"] * requests))
    )
    return _shuffled(made, blocks, np.random.default_rng((seed, 9)))


def texts(data: Path) -> Requests:
    """GSM8K as chat, each output as long as the worked answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gsm8k.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in gsm8k_lines(data)))
        return read_requests(path)


def _shuffled(one: Requests, other: Requests, rng: np.random.Generator) -> Requests:
    """Both together, in a random order."""
    prompts = [request.prompt(i) for request in (one, other) for i in range(len(request))]
    order = rng.permutation(len(prompts))
    offsets = np.zeros(len(prompts) + 1, np.int64)
    np.cumsum([len(prompts[i]) for i in order], out=offsets[1:])
    token_ids = np.empty(offsets[-1], np.int32)
    for place, i in enumerate(order):
        token_ids[offsets[place] : offsets[place + 1]] = prompts[i]
    return Requests(
        ids=pa.concat_arrays([one.ids, other.ids]).take(pa.array(order)),
        source_row=np.arange(len(prompts), dtype=np.int64),
        token_ids=token_ids,
        offsets=offsets,
        output_tokens=np.concatenate([one.output_tokens, other.output_tokens])[order],
        max_tokens=np.full(len(prompts), -1, np.int32),
    )


def sources_of(requests: Requests) -> NDArray[np.str_]:
    """The source of each request, by its id."""
    return np.array([name.partition("-")[0].split("_")[0] for name in requests.ids.to_pylist()])


def predicted(
    predictor: str, tree: PrefixTree, requests: Requests, rows: NDArray[np.int64]
) -> Lengths:
    """What a predictor says of all requests when it has seen those of `rows`."""
    outputs = requests.output_tokens[rows]
    if predictor == "nearest":
        return NearestSubtreePredictor().fit(tree, rows, outputs).predict(tree.node_of)
    hidden = without_lengths(requests)
    weights = sample_weights(hidden, tree, rows)
    return lengths_from_prompts(hidden, tree, rows, outputs, weights)


def all_errors(requests: Requests, seeds: int) -> list[Row]:
    """Errors by source, sampled share and predictor: means over samples of different seeds."""
    tree = build_tree(requests)
    hidden = without_lengths(requests)
    source = sources_of(requests)
    names = list(dict.fromkeys(sorted(source)))
    if len(names) > 1:
        names.append("all")
    found = []
    for fraction in FRACTIONS:
        for predictor in PREDICTORS:
            runs: dict[str, list[Row]] = {name: [] for name in names}
            fit_s = []
            for seed in range(seeds):
                rows = choose_sample(tree, hidden, fraction, seed)
                started = time.perf_counter()
                summary = predicted(predictor, tree, requests, rows)
                fit_s.append(time.perf_counter() - started)
                rest = np.ones(len(requests), dtype=np.bool_)
                rest[rows] = False
                for name in names:
                    chosen = rest if name == "all" else rest & (source == name)
                    runs[name].append(errors(requests, summary, chosen))
            for name in names:
                row = {"source": name, "fraction": fraction, "predictor": predictor}
                means = {
                    key: float(np.mean([one[key] for one in runs[name]])) for key in runs[name][0]
                }
                found.append(row | means | {"fit_s": min(fit_s)})
    return found


def errors(requests: Requests, lengths: Lengths, chosen: NDArray[np.bool_]) -> Row:
    """Errors over the chosen requests."""
    truth = requests.output_tokens[chosen].astype(np.float64)
    prompt = requests.prompt_tokens[chosen].astype(np.float64)
    mean, p50, p90 = (column[chosen].astype(np.float64) for column in lengths.columns)
    error = mean - truth
    read = (prompt * truth + truth**2 / 2).sum()
    squares = (lengths.outcomes[chosen].astype(np.float64) ** 2).mean(axis=1)
    reads, reads_spread = (
        abs(float((prompt * mean + square / 2).sum() / read) - 1.0) for square in (mean**2, squares)
    )
    return {
        "requests": len(truth),
        "mean_tokens": float(truth.mean()),
        "mean_absolute": float(np.abs(error).mean()),
        "root_mean_square": float(np.sqrt((error**2).mean())),
        "total": abs(float(error.sum() / truth.sum())),
        "reads": reads,
        "reads_with_spread": reads_spread,
        "under_p50": float((truth <= p50).mean()),
        "under_p90": float((truth <= p90).mean()),
    }


def error_table(rows: list[Row]) -> str:
    """Markdown; where there are several numbers, `nearest` first, then `sample`."""
    lines = [
        "| source | sample | mean output | mean absolute error: nearest | words "
        "| error of the total | of the reads | with the spread | under p50 | under p90 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    found = {(row["source"], row["fraction"], row["predictor"]): row for row in rows}
    names = sorted({row["source"] for row in rows}, key=lambda name: (name == "all", name))
    for name in names:
        for fraction in FRACTIONS:
            pair = [found[name, fraction, predictor] for predictor in PREDICTORS]
            cells = [name, f"{fraction:.0%}", f"{pair[0]['mean_tokens']:,.0f}"]
            cells += [f"{row['mean_absolute']:,.1f}" for row in pair]
            cells += [", ".join(f"{row[key]:.1%}" for row in pair) for key in ERRORS]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("%", " %") + "\n"


if __name__ == "__main__":
    try:
        main()
    except BlendplanError as error:
        sys.exit(f"error: {error}")
