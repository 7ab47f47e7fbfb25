"""What the rows of mixture runs come to: shares of the bound, gains, losses and predictions."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.mixture_runs import ANY, KNOWLEDGE, PLAIN, POLICY_NAMES
from benchmarks.paper_tables import markdown_table

Row = dict[str, Any]
Table = tuple[Sequence[str], list[list[str]]]

# A policy loses where it is slower than another by more than this.
LOSS = 0.005
# Root density, compute over memory time, that counts as near 1.
NEAR = (0.5, 2.0)


class Runs:
    """Rows by mixture, overlap, knowledge and policy; a later row stands for an earlier one."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[tuple[int, float, str, str], Row] = {}
        for row in rows:
            key = (row["mixture"], row["overlap"], row["knowledge"], row["policy"])
            self._rows[key] = row
        self.mixtures = sorted({key[0] for key in self._rows})
        self.overlaps = sorted({key[1] for key in self._rows})
        names = {key[2] for key in self._rows}
        self.knowledge = [name for name in KNOWLEDGE if name in names]

    def get(self, mixture: int, overlap: float, knowledge: str, policy: str) -> Row | None:
        """The row; of a policy that does not look at lengths, whatever the knowledge."""
        knowledge = ANY if policy in PLAIN else knowledge
        return self._rows.get((mixture, overlap, knowledge, policy))

    def density(self, mixture: int) -> float | None:
        """Root density by the true lengths, of any overlap exponent."""
        for overlap in self.overlaps:
            for name in PLAIN:
                row = self.get(mixture, overlap, ANY, name)
                if row is not None:
                    return float(row["density"])
        return None

    def places(self) -> list[tuple[str, float]]:
        """All of knowledge and overlap exponents."""
        return [(kind, overlap) for kind in self.knowledge for overlap in self.overlaps]

    def compared(
        self,
        overlap: float,
        first: tuple[str, str],
        others: Sequence[tuple[str, str]],
    ) -> dict[int, float]:
        """Throughput over that of the best of others, by mixture; where all have run.

        Args:
            overlap: overlap exponent.
            first: knowledge and policy.
            others: knowledge and policy of each.
        """
        found = {}
        for mixture in self.mixtures:
            one = self.get(mixture, overlap, *first)
            rest = [self.get(mixture, overlap, *other) for other in others]
            if one is None or not all(rest):
                continue
            found[mixture] = min(row["makespan_s"] for row in rest if row) / one["makespan_s"]
        return found


def tables(rows: Iterable[Row], *, markdown: bool = False, each: bool = False) -> str:
    """All tables as text, or in Markdown; `each` adds one with a line for each mixture."""
    runs = Runs(rows)
    parts = {
        f"Share of the bound, mean of {len(runs.mixtures)} mixtures (KV cache in use)": shares(
            runs
        ),
        "blend against itself with known lengths": against_known(runs),
        "blend against the best of fcfs, random and dfs": against_plain(runs),
        "blendserve against dfs": paper_policy(runs),
        "Predicted lengths": predictions(runs),
    }
    if each:
        parts["Share of the bound, every mixture"] = every_mixture(runs)
    form = markdown_table if markdown else _plain_table
    return "\n\n".join(f"{title}\n\n{form(*table)}" for title, table in parts.items())


def shares(runs: Runs) -> Table:
    """Mean share of the bound by policy, and the share of the KV cache in use."""
    head = ["lengths", "q", *POLICY_NAMES]
    lines = []
    for knowledge, overlap in runs.places():
        cells = [knowledge, f"{overlap:g}"]
        for policy in POLICY_NAMES:
            got = [runs.get(mixture, overlap, knowledge, policy) for mixture in runs.mixtures]
            rows = [row for row in got if row is not None]
            used = f" ({_mean(row['kv_use'] for row in rows):.0%})" if rows else ""
            cells.append(_percent(_mean(row["share"] for row in rows)) + used if rows else "-")
        lines.append(cells)
    return head, lines


def against_known(runs: Runs) -> Table:
    """What not knowing costs `blend`."""
    lines = []
    for knowledge, overlap in runs.places():
        if knowledge == "known":
            continue
        ratios = runs.compared(overlap, (knowledge, "blend"), [("known", "blend")])
        lines.append([knowledge, f"{overlap:g}", *_mean_and_worst(ratios)])
    return ["lengths", "q", "mixtures", "mean", "worst"], lines


def against_plain(runs: Runs) -> Table:
    """Whether `blend` is ever slower than an order that anybody could take."""
    lines = []
    plain = [(ANY, name) for name in PLAIN]
    for knowledge, overlap in runs.places():
        ratios = runs.compared(overlap, (knowledge, "blend"), plain)
        over_dfs = runs.compared(overlap, (knowledge, "blend"), [(ANY, "dfs")])
        gain = f"{100 * (_mean(over_dfs.values()) - 1):+.1f} %" if over_dfs else "-"
        lost = losses(ratios)
        named = f"{len(lost)}: {', '.join(map(str, lost))}" if lost else "0"
        lines.append([knowledge, f"{overlap:g}", *_mean_and_worst(ratios), named, gain])
    head = ["lengths", "q", "mixtures", "mean", "worst", "loses over 0.5 %", "mean gain over dfs"]
    return head, lines


def losses(ratios: dict[int, float], allowed: float = LOSS) -> list[int]:
    """The mixtures whose ratio of throughput is less than 1 by more than that, worst first."""
    # As makespans: "slower by 0.5 %" is a makespan of more than 1.005 times the other.
    lost = [mixture for mixture, ratio in ratios.items() if 1.0 / ratio > 1.0 + allowed]
    return sorted(lost, key=lambda mixture: ratios[mixture])


def paper_policy(runs: Runs) -> Table:
    """`blendserve` against dfs, where the paper says that it gains and elsewhere."""
    lines = []
    for knowledge, overlap in runs.places():
        ratios = runs.compared(overlap, (knowledge, "blendserve"), [(ANY, "dfs")])
        for label, inside in (("0.5 to 2", True), ("elsewhere", False)):
            some = {m: ratio for m, ratio in ratios.items() if _near(runs, m) == inside}
            lost = losses(some, 0.0)
            lines.append([knowledge, f"{overlap:g}", label, *_mean_and_worst(some), str(len(lost))])
    return ["lengths", "q", "density", "mixtures", "mean", "worst", "slower than dfs"], lines


def _near(runs: Runs, mixture: int) -> bool:
    density = runs.density(mixture)
    return density is not None and NEAR[0] <= density <= NEAR[1]


def predictions(runs: Runs) -> Table:
    """How good predictions are; of each mixture once, whatever overlap exponent and policy."""
    lines = []
    for knowledge in runs.knowledge:
        found: dict[int, Row] = {}
        for mixture in runs.mixtures:
            for overlap in runs.overlaps:
                for policy in ("blendserve", "blend"):
                    row = runs.get(mixture, overlap, knowledge, policy)
                    if row is not None:
                        found[mixture] = row["lengths"]
        totals = {m: row["total"] for m, row in found.items()}
        if not totals or knowledge == "known":
            continue
        worst = max(totals, key=lambda mixture: abs(totals[mixture] - 1.0))
        error = _mean(abs(total - 1.0) for total in totals.values())
        cells = [knowledge, str(len(found)), _percent(error)]
        cells.append(f"{totals[worst]:.2f} ({worst})")
        full = [row for row in found.values() if "under_p50" in row]
        if not full:  # every request was in the sample
            lines.append([*cells, "-", "-", "-"])
            continue
        for key in ("under_p50", "under_p90"):
            values = [row[key] for row in full]
            cells.append(f"{_mean(values):.0%} ({min(values):.0%} to {max(values):.0%})")
        cells.append(_percent(_mean(row["mean_absolute"] / row["mean_tokens"] for row in full)))
        lines.append(cells)
    head = ["lengths", "mixtures", "error of the total", "worst total", "under p50", "under p90"]
    return [*head, "mean absolute error / mean"], lines


def every_mixture(runs: Runs) -> Table:
    """Shares of the bound of every mixture."""
    lines = []
    for mixture in runs.mixtures:
        for overlap in runs.overlaps:
            cells = [str(mixture), f"{runs.density(mixture) or 0:.2f}", f"{overlap:g}"]
            columns = [(ANY, name) for name in PLAIN]
            columns += [(kind, name) for kind in runs.knowledge for name in POLICY_NAMES[3:]]
            for knowledge, policy in columns:
                row = runs.get(mixture, overlap, knowledge, policy)
                cells.append(f"{100 * row['share']:.1f}" if row else "-")
            lines.append(cells)
    named = [f"{name} {kind}" for kind in runs.knowledge for name in POLICY_NAMES[3:]]
    return ["mixture", "density", "q", *PLAIN, *named], lines


def _mean_and_worst(ratios: dict[int, float]) -> list[str]:
    if not ratios:
        return ["0", "-", "-"]
    worst = min(ratios, key=lambda mixture: ratios[mixture])
    mean = _percent(_mean(ratios.values()))
    return [str(len(ratios)), mean, f"{_percent(ratios[worst])} ({worst})"]


def _mean(values: Iterable[float]) -> float:
    return fmean(values)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _plain_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines, strict=True)]
    pad: Callable[[Sequence[str]], str] = lambda line: "  ".join(  # noqa: E731
        cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    ).rstrip()
    return "\n".join(pad(line) for line in (head, *lines))
