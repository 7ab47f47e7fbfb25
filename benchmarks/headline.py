"""The headline figures of README.md, from the results of the paper's experiments.

``python benchmarks/paper.py page`` puts them between their markers. `blend` is taken from
`goals`; the orders that it is compared with are from `figure7`, the same workloads under the same
prices, with the same bound.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.paper_runs import Place
from benchmarks.paper_tables import markdown_table, replaced
from benchmarks.synthetic.workloads import PAPER_TRACES

MARKER = "headline"
OVERLAPS = (1.0, 2.0)
LABELS = {
    1.0: "none (q = 1, stock vLLM, SGLang)",
    2.0: "operators overlap (q = 2)",
}
ORDERS = {
    "dfs": "depth-first",
    "blendserve": "the paper's (`blendserve`)",
    "known": "**`blend`**",
    "sample": "`blend`, lengths from a 1 % sample",
}

Row = dict[str, Any]
# By name of the workload and overlap exponent.
Rows = dict[tuple[str, float], Row]


def fill_headline(readme: Path, results: Path) -> None:
    """Put the figures of the results into README.md."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replaced(text, MARKER, headline(results)), encoding="utf-8")


def headline(results: Path) -> str:
    """What the figures are of, the table, and what it comes to; Markdown."""
    plain, blend = _plain_orders(results), _blend(results)
    place = Place()
    count = next(iter(plain.values()))["requests"]
    lead = (
        f"Simulated: the paper's four workloads from real traces, {count:,} requests each, "
        f"{place.model} on one {place.gpu}, cost model `{place.cost}` (the paper's prices). Share "
        "of a lower bound that no schedule can beat; `blend` from "
        "[goals.json](benchmarks/results/goals.json), the other orders from "
        "[figure7.json](benchmarks/results/figure7.json):"
    )
    return f"{lead}\n\n{_table(plain, blend)}\n\n{_throughput(plain, blend)}"


def _plain_orders(results: Path) -> Rows:
    place = Place()
    rows = _rows(results, "figure7")
    here = [row for row in rows if (row["model"], row["tp"]) == (place.model, place.tp)]
    return {(row["name"], row["overlap"]): row for row in here}


def _blend(results: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in _rows(results, "goals"):
        found.setdefault(row["knowledge"], {})[row["workload"], row["overlap"]] = row
    return found


def _rows(results: Path, experiment: str) -> list[Row]:
    rows: list[Row] = json.loads((results / f"{experiment}.json").read_text("utf-8"))["rows"]
    return rows


def _table(plain: Rows, blend: dict[str, Rows]) -> str:
    head = [
        "overlap of compute and memory",
        "order",
        *(
            f"density {recipe.density:g}, sharing {100 * (recipe.sharing or 0):g} %"
            for recipe in PAPER_TRACES.values()
        ),
    ]
    lines = []
    for overlap in OVERLAPS:
        for order, label in ORDERS.items():
            first = LABELS[overlap] if order == "dfs" else ""
            shares = [_share(plain, blend, order, (name, overlap)) for name in PAPER_TRACES]
            bold = "**" if order == "known" else ""
            lines.append([first, label, *(f"{bold}{share:.1f} %{bold}" for share in shares)])
    return markdown_table(head, lines)


def _share(plain: Rows, blend: dict[str, Rows], order: str, key: tuple[str, float]) -> float:
    """Share of the bound in percent."""
    if order in blend:
        return float(blend[order][key]["blend"])
    row = plain[key]
    if order == "dfs":
        ratios = row["dfs_orders"]["bound_ratios"]
        return 100.0 * float(sum(ratios)) / len(ratios)
    return 100.0 * float(row["policies"][order]["bound_ratio"])


def _throughput(plain: Rows, blend: dict[str, Rows]) -> str:
    """What `blend` gains over depth-first order, by overlap and by what is known of lengths."""
    known, sample = (
        [_gains(plain, blend[knowledge], overlap) for overlap in OVERLAPS]
        for knowledge in ("known", "sample")
    )
    return (
        f"With known output lengths that is {known[0]} more throughput than depth-first order "
        f"without overlap, and {known[1]} with it. With lengths from a 1 % sample it is "
        f"{sample[0]} and {sample[1]} here, the run of the sample not counted."
    )


def _gains(plain: Rows, blend: Rows, overlap: float) -> str:
    """The least and the greatest gain in throughput over the four workloads."""
    gains = []
    for name in PAPER_TRACES:
        base = plain[name, overlap]["dfs_orders"]["mean_makespan_s"]
        gains.append(100.0 * (base / blend[name, overlap]["makespan_s"] - 1.0))
    return f"{min(gains):.0f} to {max(gains):.0f} %"
