"""How far estimates from a sample are off, by how the sample was chosen.

    python benchmarks/sampling.py --data DIR [--half tune|report|given|all] [--seeds N]

For each mixture, samples of 1 % or 200 requests are drawn with many seeds: uniformly at random; by
the square root over the main branches of the prefix tree and without weights, as before; and by
`choose_sample` with `sample_weights`. Printed are the root mean square of the relative errors of
the total output tokens and of those of one source, the one with the longest outputs among those
with under a tenth of the requests (or of all where there is none), and how often the intervals of
`total_interval`, which promise nine times in ten, hold the true total.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.mixture_recipes import recipes
from benchmarks.mixture_sets import Mixture, mixture
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.lengths.sample import LEAST_SAMPLES, choose_sample
from blendplan.lengths.strata import strata_of
from blendplan.lengths.totals import total_interval
from blendplan.lengths.weights import sample_weights
from blendplan.requests.columns import without_lengths
from blendplan.tree.build import build_tree
from blendplan.tree.prefix_tree import PrefixTree

Draw = Callable[[int], tuple[NDArray[np.int64], NDArray[np.float64]]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default=os.environ.get("BLENDPLAN_DATA", ""))
    parser.add_argument("--half", default="report", choices=["tune", "report", "given", "all"])
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    print("| mixture | one source | uniform | branches | kinds | in 90 % interval | its width |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for of in recipes(options.half):
        mixed = mixture(of, Path(options.data))
        figures, which = measured(mixed, options.seeds)
        rows.append(figures)
        print(
            f"| {of.number}: {len(mixed.part):,} requests | {which} | {_cells(figures)} |",
            flush=True,
        )
    mean = np.sqrt((np.array(rows)[:, :6] ** 2).mean(axis=0))
    figures = np.append(mean, np.mean(rows, axis=0)[6:])
    print(f"| root mean square | | {_cells(figures)} |")


def measured(mixed: Mixture, seeds: int) -> tuple[NDArray[np.float64], str]:
    """Errors of the total and of one source for each way, then the interval's; and the source."""
    truth = mixed.requests.output_tokens.astype(np.float64)
    hidden = without_lengths(mixed.requests)
    hidden = replace(hidden, max_tokens=np.where(hidden.max_tokens == 1, 2, hidden.max_tokens))
    tree = build_tree(hidden)
    strata = strata_of(hidden, tree)
    n = len(truth)
    k = min(n, max(LEAST_SAMPLES, round(0.01 * n)))
    count = np.bincount(mixed.part)
    mean = np.bincount(mixed.part, truth) / count
    rare = np.flatnonzero(count < 0.1 * n)
    rare = rare if len(rare) else np.arange(len(count))
    source = int(rare[np.argmax(mean[rare])])
    inside = truth * (mixed.part == source)

    def uniform(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.random.default_rng(seed).choice(n, k, replace=False), np.full(k, n / k)

    def branches(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows = by_branches(tree, k, seed)
        return rows, np.full(len(rows), n / len(rows))

    def kinds(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows = choose_sample(tree, hidden, 0.01, seed, strata)
        return rows, sample_weights(hidden, tree, rows, strata)

    ways: list[Draw] = [uniform, branches, kinds]
    errors = np.empty((seeds, len(ways), 2))
    held, widths = 0, []
    for seed in range(seeds):
        for way, draw in enumerate(ways):
            rows, weights = draw(seed)
            for place, values in enumerate((truth, inside)):
                errors[seed, way, place] = weights @ values[rows] / values.sum() - 1.0
        total = total_interval(hidden, tree, rows, mixed.requests.output_tokens[rows], strata)
        held += total.low <= truth.sum() <= total.high
        widths.append((total.high - total.low) / truth.sum())
    figures = np.sqrt((errors**2).mean(axis=0)).ravel()
    which = (
        f"{mixed.recipe.parts[source].source} ({count[source] / n:.1%}, mean {mean[source]:,.0f})"
    )
    return np.append(figures, [held / seeds, float(np.median(widths))]), which


def by_branches(tree: PrefixTree, count: int, seed: int) -> NDArray[np.int64]:
    """The earlier way: main branches by the square root of their requests, then systematic."""
    size = tree.request_end - tree.request_start
    top = int(np.flatnonzero(size == len(tree))[-1])
    large = np.flatnonzero((tree.parent == top) & (size >= max(2.0, 1e-4 * len(tree))))
    branch = np.zeros(len(tree), dtype=np.int64)
    for place, node in enumerate(large):
        branch[tree.order[tree.request_start[node] : tree.request_end[node]]] = place + 1
    branch = branch[tree.order]
    order = np.argsort(branch, kind="stable")
    sizes = np.bincount(branch)
    sizes = sizes[sizes > 0]
    share = np.zeros(len(sizes))
    free = np.ones(len(sizes), dtype=np.bool_)
    while free.any():
        roots = np.sqrt(sizes) * free
        share[free] = ((count - share[~free].sum()) * roots / roots.sum())[free]
        full = free & (share >= sizes)
        share[full] = sizes[full]
        if not full.any():
            break
        free &= ~full
    line = np.concatenate([[0.0], np.cumsum(np.repeat(share / sizes, sizes))])
    line *= count / line[-1]
    start = np.random.default_rng(seed).random()
    places = np.searchsorted(line, np.arange(count) + start, side="right") - 1
    return tree.order[order[np.unique(np.clip(places, 0, len(tree) - 1))]]


def _cells(figures: NDArray[np.float64]) -> str:
    pairs = [f"{100 * figures[i]:.1f} / {100 * figures[i + 1]:.1f} %" for i in (0, 2, 4)]
    return " | ".join([*pairs, f"{figures[6]:.0%}", f"{figures[7]:.0%}"])


if __name__ == "__main__":
    try:
        main()
    except BlendplanError as error:
        sys.exit(str(error))
