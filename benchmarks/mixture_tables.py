"""What the rows of mixture runs come to: shares of the bound, gains, losses and predictions."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from benchmarks.mixture_results import Entry, Row, Runs
from benchmarks.mixture_runs import ANY, PLAIN, POLICY_NAMES
from benchmarks.paper_tables import markdown_table

Table = tuple[Sequence[str], list[list[str]]]

# A policy loses where it is slower than another by more than this.
LOSS = 0.005
# Root density, compute over memory time, that counts as near 1.
NEAR = (0.5, 2.0)


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
        "What blend takes longer than the bound, in percent of its makespan": missing_time(runs),
    }
    if each:
        parts["Share of the bound, every mixture"] = every_mixture(runs)
    return _joined(parts, markdown)


def changes(before: Iterable[Row], after: Iterable[Row], *, markdown: bool = False) -> str:
    """Where two runs of the same mixtures differ."""
    old, new = Runs(before), Runs(after)
    lines = []
    for knowledge, overlap in new.places():
        for policy in POLICY_NAMES:
            kind = ANY if policy in PLAIN else knowledge
            earlier = old.all(overlap, kind, policy)
            ratios = {
                entry: earlier[entry]["makespan_s"] / row["makespan_s"]
                for entry, row in new.all(overlap, kind, policy).items()
                if entry in earlier
            }
            if not ratios or (policy in PLAIN and knowledge != new.knowledge[0]):
                continue
            best = max(ratios, key=lambda entry: ratios[entry])
            cells = [kind, f"{overlap:g}", policy, *_mean_and_worst(ratios)]
            cells.append(f"{_percent(ratios[best])} ({_name(best)})")
            lost = losses(ratios)
            cells.append(", ".join(map(_name, lost)) or "none")
            lines.append(cells)
    head = ["lengths", "q", "policy", "mixtures", "mean", "worst", "best", "slower by over 0.5 %"]
    return _joined({"Throughput of the second over that of the first": (head, lines)}, markdown)


def _joined(parts: dict[str, Table], markdown: bool) -> str:
    form = markdown_table if markdown else _plain_table
    return "\n\n".join(f"{title}\n\n{form(*table)}" for title, table in parts.items())


def shares(runs: Runs) -> Table:
    """Mean share of the bound by policy, and the share of the KV cache in use."""
    head = ["lengths", "q", *POLICY_NAMES]
    lines = []
    for knowledge, overlap in runs.places():
        cells = [knowledge, f"{overlap:g}"]
        for policy in POLICY_NAMES:
            kind = ANY if policy in PLAIN else knowledge
            rows = runs.all(overlap, kind, policy).values()
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
        named = f"{len(lost)}: {', '.join(map(_name, lost))}" if lost else "0"
        lines.append([knowledge, f"{overlap:g}", *_mean_and_worst(ratios), named, gain])
    head = ["lengths", "q", "mixtures", "mean", "worst", "loses over 0.5 %", "mean gain over dfs"]
    return head, lines


def losses(ratios: dict[Entry, float], allowed: float = LOSS) -> list[Entry]:
    """Those whose ratio of throughput is less than 1 by more than that, worst first."""
    # As makespans: "slower by 0.5 %" is a makespan of more than 1.005 times the other.
    lost = [entry for entry, ratio in ratios.items() if 1.0 / ratio > 1.0 + allowed]
    return sorted(lost, key=lambda entry: ratios[entry])


def paper_policy(runs: Runs) -> Table:
    """`blendserve` against dfs, where the paper says that it gains and elsewhere."""
    lines = []
    for knowledge, overlap in runs.places():
        ratios = runs.compared(overlap, (knowledge, "blendserve"), [(ANY, "dfs")])
        for label, inside in (("0.5 to 2", True), ("elsewhere", False)):
            some = {e: ratio for e, ratio in ratios.items() if _near(runs, e[0]) == inside}
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
        found: dict[Entry, Row] = {}
        for overlap in runs.overlaps:
            for policy in ("blendserve", "blend"):
                rows = runs.all(overlap, knowledge, policy)
                found |= {entry: row["lengths"] for entry, row in rows.items()}
        totals = {entry: row["total"] for entry, row in found.items()}
        if not totals or knowledge == "known":
            continue
        worst = max(totals, key=lambda entry: abs(totals[entry] - 1.0))
        error = _mean(abs(total - 1.0) for total in totals.values())
        cells = [knowledge, str(len(found)), _percent(error)]
        cells.append(f"{totals[worst]:.2f} ({_name(worst)})")
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


def missing_time(runs: Runs) -> Table:
    """Where `blend` loses time against the bound.

    Recomputed: prompt tokens prefilled beyond what no schedule avoids, at the best price of a
    token. Sizes: all other compute beyond the bound's, of steps that are not of the best size.
    Reads: memory time beyond the bound's. The rest: steps whose compute and memory times overlap
    less well than the totals would, and fixed costs of steps. The tail is the time after the last
    admission, whatever it is lost to.
    """
    lines = []
    for knowledge, overlap in runs.places():
        rows = [row for row in runs.all(overlap, knowledge, "blend").values() if "token_s" in row]
        if not rows:
            continue
        columns = list(zip(*map(_missing_shares, rows), strict=True))
        # No "-0.0".
        cells = [f"{round(100 * _mean(column), 1) + 0.0:.1f}" for column in columns]
        steps = _mean(row["steps"] / row["bound_steps"] for row in rows)
        lines.append([knowledge, f"{overlap:g}", str(len(rows)), *cells, f"{steps:.2f}"])
    head = ["lengths", "q", "mixtures", "all", "recomputed", "sizes", "reads", "rest", "tail"]
    return [*head, "steps / least steps"], lines


def _missing_shares(row: Row) -> tuple[float, ...]:
    """All that is lost, its four parts, and the tail; shares of the makespan."""
    lost = row["makespan_s"] - row["bound_s"]
    again = (row["prefill_tokens"] - row["least_prefill_tokens"]) * row["token_s"]
    sizes = row["compute_s"] - row["bound_compute_s"] - again
    reads = row["memory_s"] - row["bound_memory_s"]
    # What a second of compute or of memory time costs where the two overlap.
    q = row["overlap"]
    both = (row["compute_s"] ** q + row["memory_s"] ** q) ** (1 / q)
    of_compute, of_memory = ((row[key] / both) ** (q - 1) for key in ("compute_s", "memory_s"))
    parts = [again * of_compute, sizes * of_compute, reads * of_memory]
    times = (lost, *parts, lost - sum(parts), row["tail_s"])
    return tuple(time / row["makespan_s"] for time in times)


def every_mixture(runs: Runs) -> Table:
    """Shares of the bound of every mixture."""
    lines = []
    columns = [(ANY, name) for name in PLAIN]
    columns += [(kind, name) for kind in runs.knowledge for name in POLICY_NAMES[3:]]
    for entry in runs.entries:
        for overlap in runs.overlaps:
            cells = [_name(entry), f"{runs.density(entry[0]) or 0:.2f}", f"{overlap:g}"]
            for knowledge, policy in columns:
                row = runs.get(entry, overlap, knowledge, policy)
                cells.append(f"{100 * row['share']:.1f}" if row else "-")
            lines.append(cells)
    named = [f"{name} {kind}" for kind, name in columns[len(PLAIN) :]]
    return ["mixture", "density", "q", *PLAIN, *named], lines


def _mean_and_worst(ratios: dict[Entry, float]) -> list[str]:
    if not ratios:
        return ["0", "-", "-"]
    worst = min(ratios, key=lambda entry: ratios[entry])
    mean = _percent(_mean(ratios.values()))
    return [str(len(ratios)), mean, f"{_percent(ratios[worst])} ({_name(worst)})"]


def _name(entry: Entry) -> str:
    mixture, seed = entry
    return f"{mixture}, seed {seed}" if seed else str(mixture)


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
