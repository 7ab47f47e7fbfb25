"""How well output lengths are predicted from the words of prompts.

    python benchmarks/length_texts.py --data DIR [--half report] [--requests 10000] [--json FILE]

Texts of task families with output lengths, ``prompts_outputs.parquet``, in random order. The even
families (in alphabetical order) were tuned on, the odd ones were not. *Within*: a sample as
``blendplan sample`` draws it, 1 % or at least 200 requests, predicts the others. *Held out*: as
large a sample of four fifths of the families predicts the last fifth, each fifth in turn. Columns:
mean absolute error of the predicted means and of p50, in tokens, the error of the total, and the
shares of outputs no longer than p50 and p90. ``DIR`` holds the traces; ``BLENDPLAN_DATA`` names it
otherwise.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.synthetic.pools import traces_folder

from blendplan.lengths.from_prompts import lengths_from_prompts
from blendplan.lengths.nearest_subtree import NearestSubtreePredictor
from blendplan.lengths.predicted import Lengths
from blendplan.lengths.sample import choose_sample
from blendplan.lengths.weights import sample_weights
from blendplan.offsets import offsets_of
from blendplan.requests.columns import Requests, select, without_lengths
from blendplan.requests.tokens import estimate_tokens
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree

HALVES = {"tune": 0, "report": 1}
FOLDS = 5
Rows = NDArray[np.int64]
Rule = Callable[[Requests, PrefixTree, Rows, NDArray[np.float64]], Lengths]


def main() -> None:
    """Print a table, and write it where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=traces_folder, default=os.environ.get("BLENDPLAN_DATA"))
    parser.add_argument("--half", choices=list(HALVES), default="report")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR, the folder with the traces, or set BLENDPLAN_DATA")
    found: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        requests, family = texts(
            traces_folder(arguments.data), arguments.half, arguments.requests, seed
        )
        found += within(requests, seed)
        found += held_out(requests, family, seed)
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def texts(data: Path, half: str, count: int, seed: int) -> tuple[Requests, NDArray[np.str_]]:
    """Requests with their true output lengths, and the family of each."""
    columns = pq.read_table(data / "prompts_outputs.parquet")
    family = np.array(columns["family"].to_pylist())
    names = np.unique(family)
    rows = np.flatnonzero(np.isin(family, names[HALVES[half] :: 2]))
    rows = np.random.default_rng(seed).permutation(rows)[:count]
    prompts = columns["prompt"].combine_chunks().cast(pa.large_string()).take(pa.array(rows))
    token_ids, lengths = estimate_tokens(prompts)
    requests = Requests(
        ids=pa.array(np.arange(len(rows)).astype(str), pa.large_string()),
        source_row=np.arange(len(rows)),
        token_ids=token_ids,
        offsets=offsets_of(lengths),
        output_tokens=columns["output_tokens"].to_numpy()[rows].astype(np.int32),
        max_tokens=np.full(len(rows), -1, np.int32),
        estimated_tokens=True,
    )
    return requests, family[rows]


def by_median(
    requests: Requests, tree: PrefixTree, rows: Rows, weights: NDArray[np.float64]
) -> Lengths:
    """The same for all: median and ninth tenth of the sample."""
    outputs = requests.output_tokens[rows]
    p50, p90 = (np.full(len(requests), np.quantile(outputs, q)) for q in (0.5, 0.9))
    return Lengths.log_normal(p50, p50, p90)


def by_nearest(
    requests: Requests, tree: PrefixTree, rows: Rows, weights: NDArray[np.float64]
) -> Lengths:
    """The paper's rule."""
    fitted = NearestSubtreePredictor().fit(tree, rows, requests.output_tokens[rows])
    return fitted.predict(tree.node_of)


def by_prompts(
    requests: Requests, tree: PrefixTree, rows: Rows, weights: NDArray[np.float64]
) -> Lengths:
    """What ``sample:FILE`` does."""
    return lengths_from_prompts(requests, tree, rows, requests.output_tokens[rows], weights)


RULES: dict[str, Rule] = {
    "constant median": by_median,
    "nearest subtree": by_nearest,
    "words of the prompt": by_prompts,
}


def within(requests: Requests, seed: int) -> list[dict[str, Any]]:
    """Errors over the requests that are not in the sample."""
    tree = build_tree(requests)
    hidden = without_lengths(requests)
    rows = choose_sample(tree, hidden, 0.01, seed)
    weights = sample_weights(hidden, tree, rows)
    rest = np.ones(len(requests), dtype=np.bool_)
    rest[rows] = False
    return [
        {"test": "within", "rule": name}
        | errors(rule(requests, tree, rows, weights), requests.output_tokens, rest)
        for name, rule in RULES.items()
    ]


def held_out(requests: Requests, family: NDArray[np.str_], seed: int) -> list[dict[str, Any]]:
    """Errors over families of which no request is in the sample, all fifths together."""
    tree = build_tree(requests)
    names = np.random.default_rng(seed).permutation(np.unique(family))
    parts: dict[str, list[Lengths]] = {name: [] for name in RULES}
    truth = []
    for fold in range(FOLDS):
        out = np.isin(family, names[fold::FOLDS])
        known = np.flatnonzero(~out)
        seen = select(requests, known)
        hidden = without_lengths(seen)
        own_tree = build_tree(hidden)
        chosen = choose_sample(own_tree, hidden, 0.01, seed)
        weights = sample_weights(hidden, own_tree, chosen)
        for name, rule in RULES.items():
            lengths = rule(requests, tree, known[chosen], weights)
            parts[name].append(lengths.take(np.flatnonzero(out)))
        truth.append(requests.output_tokens[out])
    outputs = np.concatenate(truth)
    everyone = np.ones(len(outputs), dtype=np.bool_)
    return [
        {"test": "held out", "rule": name} | errors(_joined(found), outputs, everyone)
        for name, found in parts.items()
    ]


def _joined(parts: list[Lengths]) -> Lengths:
    """Predictions of several parts as one, in the same order."""
    return Lengths.predicted(
        np.concatenate([part.outcomes for part in parts]),
        np.concatenate([part.p50 for part in parts]),
        np.concatenate([part.p90 for part in parts]),
    )


def errors(
    lengths: Lengths, output_tokens: NDArray[np.int32], chosen: NDArray[np.bool_]
) -> dict[str, float]:
    """Over the chosen requests."""
    truth = output_tokens[chosen].astype(np.float64)
    mean, p50, p90 = (column[chosen].astype(np.float64) for column in lengths.columns)
    return {
        "error_of_mean": float(np.abs(mean - truth).mean()),
        "error_of_p50": float(np.abs(np.maximum(p50, 1.0) - truth).mean()),
        "total": float(mean.sum() / truth.sum() - 1.0),
        "under_p50": float((truth <= np.maximum(p50, 1.0)).mean()),
        "under_p90": float((truth <= np.maximum(p90, 1.0)).mean()),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown; means over the seeds, the total as its mean absolute error."""
    lines = [
        "| test | predicted by | error of mean | of p50 | of the total | under p50 | under p90 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for test in ("within", "held out"):
        for rule in RULES:
            mine = [row for row in found if row["test"] == test and row["rule"] == rule]
            mean, p50, total, under50, under90 = (
                float(np.mean([abs(row[key]) for row in mine]))
                for key in ("error_of_mean", "error_of_p50", "total", "under_p50", "under_p90")
            )
            lines.append(
                f"| {test} | {rule} | {mean:,.0f} | {p50:,.0f} | {100 * total:.0f} % "
                f"| {100 * under50:.0f} % | {100 * under90:.0f} % |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
