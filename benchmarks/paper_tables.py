"""Results as Markdown tables, the paper's number beside ours; `TABLES` by experiment."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.paper_runs import gain

from blendplan.errors import BlendplanError

Found = dict[str, Any]

OVERLAP_ORDER = ("2.0", "1.0", "inf")

# Of the paper: speed-up by replicas, and sharing and density of the sources.
PAPER_TABLE3 = {2: "1.85 to 1.93", 4: "3.78 to 3.88"}
PAPER_TABLE4 = {
    "sharegpt": (0.02, 3.12),
    "wildchat": (0.19, 2.13),
    "azure-code": (0.01, 33.2),
    "openvid": (0.00, 0.05),
    "burstgpt": (0.02, 17.78),
    "mmlu": (0.86, 54.91),
}


def figure7_table(found: Found) -> str:
    """Throughput of every policy against the bound, by model, overlap and workload."""
    policies = list(found["rows"][0]["policies"])
    head = ["model", "q", "workload", "density", "sharing", *policies, "blend over dfs"]
    return markdown_table(
        head,
        (
            [
                _model(row),
                f"{row['overlap']:g}",
                row["name"],
                f"{row['density']:.3f}",
                _percent(row["optimal_sharing"]),
                *(_ratio(row, name) for name in policies),
                _signed(gain(row, "blend")),
            ]
            for row in found["rows"]
        ),
    )


def gains_table(found: Found) -> str:
    """The paper's headline numbers beside ours, on the 8B model with overlap."""
    rows = [row for row in found["rows"] if _model(row) == "llama-3.1-8b" and row["overlap"] == 2]
    dfs = [fmean(row["dfs_orders"]["bound_ratios"]) for row in rows]
    lines = [
        ["depth-first order, share of the optimum", "71.7 %", _span(dfs)],
        [
            "`blendserve`, share of the optimum",
            "86.55 % (of the practical optimum)",
            _span([row["policies"]["blendserve"]["bound_ratio"] for row in rows]),
        ],
        [
            "`blend`, share of the optimum",
            "",
            _span([row["policies"]["blend"]["bound_ratio"] for row in rows]),
        ],
        [
            "`blendserve` over depth-first order",
            "+19.3 to +22.7 %, mean +20.84 %",
            _gains([gain(row, "blendserve") for row in rows]),
        ],
        [
            "`blend` over depth-first order",
            "",
            _gains([gain(row, "blend") for row in rows]),
        ],
    ]
    return markdown_table(["8B on one A100, q = 2, mean of four workloads", "paper", "here"], lines)


def sharing_table(found: Found) -> str:
    """Figure 9: prefix sharing as a share of the optimum."""
    rows = [row for row in found["rows"] if row["overlap"] == 2 and row["tp"] == 1]
    policies = list(rows[0]["policies"])
    return markdown_table(
        ["workload", "optimum", *policies],
        (
            [
                row["name"],
                _percent(row["optimal_sharing"]),
                *(
                    _percent(row["policies"][name]["prefix_sharing"] / row["optimal_sharing"])
                    for name in policies
                ),
            ]
            for row in rows
        ),
    )


def planning_table(found: Found) -> str:
    """Planning time as a share of the run."""
    lines = []
    for row in found["rows"]:
        if row["overlap"] != 2:
            continue
        blend = row["policies"]["blend"]
        plan_s, run_s = blend["plan_wall_s"], blend["makespan_s"]
        share = f"{plan_s / run_s:.2%}".replace("%", " %")
        times = [f"{plan_s:.1f} s", f"{run_s:,.0f} s", share]
        lines.append([_model(row), row["name"], f"{row['requests']:,}", *times])
    head = ["model", "workload", "requests", "planning with `blend`", "run", "share"]
    return markdown_table(head, lines)


def grid_table(found: Found) -> str:
    """Figure 11: gain of `blend` (and of `blendserve`) over depth-first order on the grid."""
    by_target = {tuple(row["target"]): row for row in found["rows"]}
    sharings = sorted({sharing for _, sharing in by_target})
    densities = sorted({density for density, _ in by_target})
    return markdown_table(
        ["density", *(f"sharing {sharing:g}" for sharing in sharings)],
        (
            [
                f"{density:.2f}",
                *(
                    f"{_signed(gain(by_target[density, sharing], 'blend'))} "
                    f"({_signed(gain(by_target[density, sharing], 'blendserve'))})"
                    for sharing in sharings
                ),
            ]
            for density in densities
        ),
    )


def grid_summary(found: Found) -> str:
    """Figure 11 in a line per policy."""
    return markdown_table(
        ["65 workloads, gain over depth-first order", "paper", "here", "share of the bound"],
        (
            [
                f"`{name}`",
                "+14 to +34 %, mean +22.5 %" if name == "blendserve" else "",
                _gains([gain(row, name) for row in found["rows"]]),
                _span([row["policies"][name]["bound_ratio"] for row in found["rows"]]),
            ]
            for name in ("blendserve", "blend")
        ),
    )


def models_table(found: Found) -> str:
    """Figure 12: other models."""
    return _policy_table(found, ["model"], lambda row: [_model(row)])


def sources_table(found: Found) -> str:
    """Figures 13 to 15: other compute-heavy sources."""
    return _policy_table(found, ["source"], lambda row: [row["source"]])


def replicas_table(found: Found) -> str:
    """Table 3: speed-up of several engines over one, and what it loses in sharing."""
    one = {row["name"].split()[0]: row for row in found["rows"] if row["replicas"] == 1}
    lines = []
    for row in found["rows"]:
        alone = one[row["name"].split()[0]]
        if row is alone:
            continue
        mine, single = row["policies"]["blend"], alone["policies"]["blend"]
        speedup = single["makespan_s"] / mine["makespan_s"]
        lines.append(
            [
                row["name"].split()[0],
                str(row["replicas"]),
                PAPER_TABLE3.get(row["replicas"], ""),
                f"{speedup:.2f}",
                _percent(speedup / row["replicas"]),
                _percent(mine["bound_ratio"]),
                _percent(1.0 - mine["prefix_sharing"] / single["prefix_sharing"]),
            ]
        )
    head = ["workload", "replicas", "paper, times as fast", "`blend`", "efficiency"]
    return markdown_table([*head, "of the bound", "sharing lost"], lines)


def ablation_table(found: Found) -> str:
    """`blend` with one part switched off at a time."""
    cases = list(dict.fromkeys(_case(row) for row in found["rows"]))
    labels = list(dict.fromkeys(row["part"] for row in found["rows"]))
    by_key = {(_case(row), row["part"]): row for row in found["rows"]}
    return markdown_table(
        ["`blend`, share of the bound", *cases],
        (
            [label, *(_percent(by_key[case, label]["bound_ratio"]) for case in cases)]
            for label in labels
        ),
    )


def _case(row: Mapping[str, Any]) -> str:
    return f"{row['name']}, {row['knowledge']}, q = {row['overlap']:g}"


def goals_table(found: Found) -> str:
    """Share of the bound by what is known of the output lengths, with preemptions."""
    names = list(dict.fromkeys(row["workload"] for row in found["rows"]))
    by_key = {(row["workload"], row["overlap"], row["knowledge"]): row for row in found["rows"]}
    kinds = list(dict.fromkeys((overlap, knowledge) for _, overlap, knowledge in by_key))
    # Python's sort is stable: what is known keeps its order under each exponent.
    kinds.sort(key=lambda kind: OVERLAP_ORDER.index(str(kind[0])))

    def cell(key: tuple[str, float, str]) -> str:
        row = by_key.get(key)
        return f"{row['blend']:.1f} % ({row['preemptions']})" if row else ""

    return markdown_table(
        ["q", "output lengths", *names],
        (
            [f"{float(q):g}", knowledge, *(cell((name, q, knowledge)) for name in names)]
            for q, knowledge in kinds
        ),
    )


def lengths_table(found: Found) -> str:
    """Known lengths, a sample, and none."""
    return _policy_table(
        found, ["source", "lengths"], lambda row: [row["source"], row["lengths"]], gains=False
    )


def table4_table(found: Found) -> str:
    """Density and sharing of the sources."""
    return markdown_table(
        ["source", "mean p", "mean d", "sharing", "paper", "density", "of the means", "paper"],
        (
            [
                row["source"],
                f"{row['mean_prompt_tokens']:,.0f}",
                f"{row['mean_output_tokens']:,.0f}",
                f"{row['sharing']:.2f}",
                _known(row["source"], 0),
                f"{row['density']:.2f}",
                f"{row['density_of_means']:.2f}",
                _known(row["source"], 1),
            ]
            for row in found["rows"]
        ),
    )


TABLES: dict[str, dict[str, Callable[[Found], str]]] = {
    "table4": {"table4": table4_table},
    "figure7": {
        "gains": gains_table,
        "figure7": figure7_table,
        "figure9": sharing_table,
        "planning": planning_table,
    },
    "figure11": {"figure11-summary": grid_summary, "figure11": grid_table},
    "figure12": {"figure12": models_table},
    "figure13": {"figure13": sources_table},
    "causes": {"causes": sources_table},
    "ablation": {"ablation": ablation_table},
    "goals": {"goals": goals_table},
    "table3": {"table3": replicas_table},
    "lengths": {"lengths": lengths_table},
}
"""By result file, the tables made of it, by their name on the page."""


def fill_page(page: Path, results: Path) -> None:
    """Put the tables between their markers, ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    text = page.read_text(encoding="utf-8")
    for experiment, tables in TABLES.items():
        path = results / f"{experiment}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, table in tables.items():
            text = replaced(text, name, table(found))
    page.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, drawn: str) -> str:
    """A page with something else between two markers, ``<!-- NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        BlendplanError: the page lacks the markers.
    """
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    text, count = between.subn(lambda markers: f"{markers[1]}{drawn}\n{markers[2]}", text)
    if count != 1:
        raise BlendplanError(f"the page has {count} places for {name!r}; give it one")
    return text


def _policy_table(
    found: Found,
    labels: Sequence[str],
    label: Callable[[Found], list[str]],
    *,
    gains: bool = True,
) -> str:
    possible = [row for row in found["rows"] if "policies" in row]
    policies = list(possible[0]["policies"])
    columns = ["over dfs: `blendserve`", "`blend`"] if gains else ["preemptions of `blend`"]
    lines = []
    for row in possible:
        last = (
            [_signed(gain(row, "blendserve")), _signed(gain(row, "blend"))]
            if gains
            else [f"{row['policies']['blend']['preemptions']:,}"]
        )
        lines.append([*label(row), row["name"], *(_ratio(row, name) for name in policies), *last])
    return markdown_table([*labels, "workload", *policies, *columns], lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _model(row: Found) -> str:
    model = str(row["model"])
    return model if row["tp"] == 1 else f"{model} x{row['tp']}"


def _ratio(row: Found, policy: str) -> str:
    ratio = row["policies"][policy]["bound_ratio"]
    if policy == "dfs" and "dfs_orders" in row:
        ratios = row["dfs_orders"]["bound_ratios"]
        return f"{fmean(ratios):.1%} ({ratios[0]:.1%} to {ratios[-1]:.1%})".replace("%", " %")
    return _percent(ratio)


def _known(source: str, column: int) -> str:
    return f"{PAPER_TABLE4[source][column]:.2f}" if source in PAPER_TABLE4 else ""


def _percent(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


def _signed(value: float) -> str:
    return f"{value:+.1%}".replace("%", " %")


def _span(values: Sequence[float]) -> str:
    return f"{_percent(fmean(values))} ({_percent(min(values))} to {_percent(max(values))})"


def _gains(values: Sequence[float]) -> str:
    return f"{_signed(min(values))} to {_signed(max(values))}, mean {_signed(fmean(values))}"
