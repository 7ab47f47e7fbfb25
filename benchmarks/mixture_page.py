"""What the mixtures say, in docs/evaluation.md and README.md, from ``results/mixtures.jsonl``.

``python benchmarks/mixtures.py page RESULTS`` takes over the results of a run and puts them between
their markers.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.mixture_results import Row, Runs
from benchmarks.mixture_runs import ANY, FIXED, KNOWLEDGE, PLAIN, POLICY_NAMES
from benchmarks.mixture_tables import (
    Table,
    against_known,
    against_plain,
    losses,
    missing_time,
    paper_policy,
    predictions,
    shares,
)
from benchmarks.paper_tables import markdown_table, replaced

from blendplan.errors import BlendplanError

FILE = "mixtures.jsonl"
MARKER = "mixtures"
LABELS = {
    "known": "known",
    "sample": "1 % sample",
    "prior": "not known",
    "history": "earlier results",
    "noise": "noise of sigma 1",
    "misstated": "noise, taken for true",
}
HEADLINE = ("known", "sample", "prior")
OVERLAPS = {1.0: "none (q = 1, stock vLLM, SGLang)", 2.0: "operators overlap (q = 2)"}
ORDERS = {"dfs": "depth-first", "blendserve": "the paper's (`blendserve`)", "blend": "**`blend`**"}

_HALVES = {
    "report": "of the half that no setting was chosen on",
    "tune": "of the half that settings were chosen on",
    "given": "of given sources",
}
# Columns that tables need: of every row, of where the time goes, of predictions.
_COLUMNS = (
    *("mixture", "half", "overlap", "thin", "effort", "seed", "requests", "knowledge"),
    *("policy", "density", "makespan_s", "share", "kv_use"),
)
_TIMES = (
    *("bound_s", "compute_s", "memory_s", "steps", "prefill_tokens", "least_prefill_tokens"),
    *("token_s", "bound_compute_s", "bound_memory_s", "bound_steps", "tail_s"),
)
_LENGTHS = ("total", "under_p50", "under_p90", "mean_absolute", "mean_tokens")


def write_results(rows: Iterable[Row], path: Path) -> None:
    """Write what the tables need of the rows of one half, sorted.

    Where rows are of several halves, only those of the reported one count; of rows of the same run
    only the last.
    """
    kept = list(rows)
    if any(row["half"] == "report" for row in kept):
        kept = [row for row in kept if row["half"] == "report"]
    if len(halves := sorted({row["half"] for row in kept})) != 1:
        raise BlendplanError(f"rows of the halves {halves}; give results of one half")
    last = {_place(row): row for row in kept}
    lines = [
        json.dumps(_trimmed(last[place]), separators=(",", ":")) + "\n" for place in sorted(last)
    ]
    path.write_text("".join(lines), encoding="utf-8")


def read_results(results: Path) -> list[Row]:
    """The rows that `write_results` left in a folder of results."""
    with (results / FILE).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fill_evaluation(page: Path, results: Path) -> None:
    """Put the tables into docs/evaluation.md, each between its markers."""
    text = page.read_text(encoding="utf-8")
    rows = read_results(results)
    for name, drawn in PARTS.items():
        text = replaced(text, f"{MARKER}-{name}", drawn(rows))
    page.write_text(text, encoding="utf-8")


def fill_readme(readme: Path, results: Path) -> None:
    """Put the compact table into README.md."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replaced(text, MARKER, headline(read_results(results))), encoding="utf-8")


def headline(rows: list[Row]) -> str:
    """What the figures are of, the compact table, and what it comes to; Markdown."""
    runs = Runs(rows)
    told = (
        f"{_lead(rows)} Mean share of a lower bound that no schedule can beat, by what is known of "
        f"output lengths ([{FILE}](benchmarks/results/{FILE})):"
    )
    return f"{told}\n\n{markdown_table(*_compact(runs))}\n\n{_gains(runs)} {_losses(runs)}"


def _lead(rows: list[Row]) -> str:
    counts = [row["requests"] for row in rows]
    first = rows[0]
    mixtures = len({row["mixture"] for row in rows})
    thin = first["thin"]
    fewer = f", {thin} times fewer than they have when whole" if thin > 1 else ""
    return (
        f"Simulated: {mixtures} mixtures {_HALVES[first['half']]}, {min(counts):,} to "
        f"{max(counts):,} requests each{fewer}; prices fitted to measured kernels (`--cost "
        f"calibrated`, the default), `--effort {first['effort']}`. A sample is of at least 200 "
        "requests, and its own run is not counted."
    )


def _compact(runs: Runs) -> Table:
    kinds = [kind for kind in HEADLINE if kind in runs.knowledge]
    lines = []
    for overlap in runs.overlaps:
        where = OVERLAPS.get(overlap, f"q = {overlap:g}")
        for policy, label in ORDERS.items():
            cells = [_mean_share(runs, overlap, kind, policy) for kind in kinds]
            if policy == "blend":
                cells = [cell if cell == "-" else f"**{cell}**" for cell in cells]
            if any(cell != "-" for cell in cells):
                lines.append([where, label, *cells])
                where = ""
    labels = {"known": "lengths known", "sample": "1 % sample", "prior": "not known"}
    return ["overlap of compute and memory", "order", *(labels[kind] for kind in kinds)], lines


def _mean_share(runs: Runs, overlap: float, knowledge: str, policy: str) -> str:
    """Mean share of the bound, of the mixtures that `blend` has run with that knowledge."""
    own = ANY if policy in PLAIN else knowledge
    ran = {mixture for mixture, _ in runs.all(overlap, knowledge, "blend")}
    rows = [r for (mixture, _), r in runs.all(overlap, own, policy).items() if mixture in ran]
    if not rows:
        return "-"
    return f"{100 * sum(row['share'] for row in rows) / len(rows):.1f} %"


def _gains(runs: Runs) -> str:
    """Mean gain in throughput of `blend` over depth-first order."""
    told = []
    for kind in HEADLINE:
        each = []
        for overlap in runs.overlaps:
            ratios = runs.compared(overlap, (kind, "blend"), [(ANY, "dfs")]).values()
            if ratios:
                each.append(f"{100 * (sum(ratios) / len(ratios) - 1):+.1f} % (q = {overlap:g})")
        if each:
            told.append(f"{' and '.join(each)} {_WITH[kind]}")
    gains = _listed(told) or "nothing that was run"
    return f"The mean gain of `blend` in throughput over depth-first order is {gains}."


_WITH = {
    "known": "with known lengths",
    "sample": "with a 1 % sample",
    "prior": "where nothing is known",
}


def _losses(runs: Runs) -> str:
    """How often, and by how much at worst, `blend` is slower than the best plain order."""
    told = []
    for kind in HEADLINE:
        lost, worst, count = 0, 1.0, 0
        for overlap in runs.overlaps:
            plain = [(ANY, name) for name in PLAIN]
            ratios = runs.compared(overlap, (kind, "blend"), plain)
            lost += len(losses(ratios))
            count += len(ratios)
            worst = min([worst, *ratios.values()])
        if count:
            by = f", at worst {100 * (1 / worst - 1):.1f} % slower" if lost else ""
            told.append(f"in {lost} of {count} runs {_WITH[kind]}{by}")
    found = "; ".join(told) or "in no run, as there was none"
    return (
        "Over 0.5 % slower than the best of input order, a shuffle and depth-first order it is "
        f"{found}."
    )


def _whole_lead(rows: list[Row]) -> str:
    runs = Runs(rows)
    return f"{_lead(rows)} {_gains(runs)} {_losses(runs)}"


def _each(rows: list[Row]) -> str:
    """Every mixture: what it is made of, and shares of the bound."""
    runs = Runs(rows)
    labels = {row["mixture"]: row["label"] for row in rows if "label" in row}
    kinds = [kind for kind in runs.knowledge if not kind.endswith(FIXED)]
    columns = [(ANY, name) for name in PLAIN]
    columns += [(kind, name) for name in POLICY_NAMES[len(PLAIN) :] for kind in kinds]
    columns = [c for c in columns if any(runs.all(overlap, *c) for overlap in runs.overlaps)]
    lines = []
    for mixture in runs.mixtures:
        cells = [str(mixture), labels.get(mixture, ""), f"{runs.density(mixture) or 0:.2f}"]
        for column in columns:
            found = [runs.get((mixture, 0), overlap, *column) for overlap in runs.overlaps]
            cells.append(" / ".join(f"{100 * row['share']:.1f}" if row else "-" for row in found))
        lines.append(cells)
    named = [name if kind == ANY else f"{name}, {_label(kind)}" for kind, name in columns]
    table = markdown_table(["mixture", "what it is", "density", *named], lines)
    exponents = " / ".join(f"{overlap:g}" for overlap in runs.overlaps)
    return f"Shares of the bound in percent, at q = {exponents}:\n\n{table}"


def _drawn(table: Callable[[Runs], Table]) -> Callable[[list[Row]], str]:
    """A table of `mixture_tables` for the page: in words, without lines that say nothing."""

    def drawn(rows: list[Row]) -> str:
        head, lines = table(Runs(rows))
        kept = [
            [_label(line[0]), *(re.sub(r"(\d)%", r"\1 %", cell) for cell in line[1:])]
            for line in lines
            if len(line) < 3 or line[_counted(head)] not in ("0", "-")
        ]
        return markdown_table(head, kept) if kept else "Not run."

    return drawn


def _counted(head: Any) -> int:
    """The column that says whether there is anything: the number of mixtures, or the last."""
    return list(head).index("mixtures") if "mixtures" in head else len(head) - 1


def _label(knowledge: str) -> str:
    told = LABELS[knowledge.removesuffix(FIXED)]
    return f"{told}, `--no-replan`" if knowledge.endswith(FIXED) else told


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)


PARTS: dict[str, Callable[[list[Row]], str]] = {
    "lead": _whole_lead,
    "shares": _drawn(shares),
    "known": _drawn(against_known),
    "plain": _drawn(against_plain),
    "blendserve": _drawn(paper_policy),
    "lengths": _drawn(predictions),
    "missing": _drawn(missing_time),
    "each": _each,
}
"""What stands on the evaluation page, by the end of its marker."""


def _place(row: Row) -> tuple[Any, ...]:
    kinds = (ANY, *KNOWLEDGE)
    order = kinds.index(row["knowledge"]), POLICY_NAMES.index(row["policy"])
    return row["mixture"], row["overlap"], *order, row["seed"], row["thin"], row["effort"]


def _trimmed(row: Row) -> Row:
    kept = {key: _short(row[key]) for key in _COLUMNS}
    if row["policy"] == PLAIN[0]:
        kept["label"] = row["label"]
    if row["policy"] == "blend":
        kept |= {key: _short(row[key]) for key in _TIMES if key in row}
    if "lengths" in row:
        kept["lengths"] = {k: _short(row["lengths"][k]) for k in _LENGTHS if k in row["lengths"]}
    return kept


def _short(value: Any) -> Any:
    """Six digits are enough for tables of percent with one decimal."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
