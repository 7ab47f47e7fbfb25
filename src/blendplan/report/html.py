"""`html_report`: a comparison as one HTML file that needs nothing else, not even a network."""

from html import escape
from pathlib import Path

from blendplan.report.figures import Figures, PolicyFigure
from blendplan.report.html_charts import (
    density_legend,
    density_picture,
    kv_occupancy,
    sharing_bars,
    step_times,
    throughput_bars,
    tree_picture,
)
from blendplan.report.html_svg import COMPUTE, MEMORY
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.whole_file import replacing

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: #1b2430;
  font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 17px; margin: 0 0 2px; }
h3 { font-size: 14px; margin: 10px 0 2px; font-weight: 600; }
p { margin: 0 0 8px; }
.lead { font-size: 18px; margin: 0; }
.muted, figcaption { color: #66717f; font-size: 13px; }
section { background: #fff; border: 1px solid #e3e7ec; border-radius: 8px;
  padding: 18px 20px; margin-top: 16px; break-inside: avoid; }
.pair { display: grid; gap: 16px 32px;
  grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); }
figure { margin: 6px 0 0; }
svg { width: 100%; height: auto; display: block; font-family: inherit; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  vertical-align: -1px; margin: 0 5px 0 12px; }
.legend { max-width: 220px; margin-top: 8px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 14px; }
.facts div { border-left: 3px solid #e3e7ec; padding-left: 10px; }
.facts b { display: block; font-size: 17px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid #e3e7ec; }
th:first-child, td:first-child { text-align: left; }
th { color: #66717f; font-weight: 500; font-size: 13px; }
tr.best td { font-weight: 600; }
@media print { body { background: #fff; } section { border-color: #ccd2d9; } }
"""


def write_html(figures: Figures, path: Path) -> None:
    """Write the report, whole or not at all.

    Raises:
        BlendplanError: the path cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(html_report(figures), encoding="utf-8")


def html_report(figures: Figures) -> str:
    """The report as one HTML document: no scripts, no fonts, no links."""
    parts = [_heading(figures), _results(figures), _over_time(figures), _workload(figures)]
    parts.append(_table(figures))
    parts += [f'<p class="muted">{escape(note)}</p>' for note in figures.notes]
    title = escape(figures.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: blendplan</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _heading(figures: Figures) -> str:
    first, *others = figures.verdict.sentences
    gpus = f"{figures.tp} x {figures.gpu}" if figures.tp > 1 else figures.gpu
    facts = {
        "requests": count(figures.requests),
        "prompt tokens": rounded(figures.prompt_tokens),
        "output tokens": rounded(figures.output_tokens),
        "compute over memory time": rounded(figures.density),
        "prefix sharing possible": share(figures.optimal_sharing),
        "KV cache, tokens": rounded(figures.kv_tokens),
        "lower bound on the run": duration(figures.bound_s),
    }
    cells = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in facts.items())
    return (
        f'<h1>{escape(first)}</h1><p class="lead">{escape(" ".join(others))}</p>'
        f'<p class="muted">{escape(figures.title)}: {escape(figures.model)} on {escape(gpus)}, '
        f"overlap exponent {figures.overlap:g}, {escape(figures.cost_model)} cost model, "
        f'simulated</p><div class="facts">{cells}</div>'
    )


def _results(figures: Figures) -> str:
    return (
        '<section class="pair">'
        + _figure(
            "Throughput",
            "Prompt and output tokens per second. The dashed line is what no schedule can exceed.",
            throughput_bars(figures),
        )
        + _figure(
            "Prefix sharing",
            "Share of the prompt tokens that came from the cache. The dashed line is the share "
            "with a cache that never evicts.",
            sharing_bars(figures),
        )
        + "</section>"
    )


def _over_time(figures: Figures) -> str:
    key = (
        f'<span class="key" style="background:{COMPUTE}"></span>compute'
        f'<span class="key" style="background:{MEMORY}"></span>memory'
    )
    panels = "".join(_panel(figures, policy) for policy in figures.policies)
    return (
        f"<section><h2>Over the run</h2><p class='muted'>Left: compute and memory time of a step."
        " The flatter and the more even the two lines, the less waits. Right: tokens in the KV "
        "cache, held by requests of the compute and of the memory side; the upper line is its "
        "capacity, the dashed one the partition, where a policy has one. All runs share one time "
        f"line.{key}</p>{panels}</section>"
    )


def _panel(figures: Figures, policy: PolicyFigure) -> str:
    return (
        f"<h3>{escape(policy.name)}: {duration(policy.makespan_s)}</h3>"
        f'<div class="pair"><figure>{step_times(figures, policy)}</figure>'
        f"<figure>{kv_occupancy(figures, policy)}</figure></div>"
    )


def _workload(figures: Figures) -> str:
    return (
        '<section><div class="pair">'
        + _figure(
            "Requests by length",
            "Larger squares hold more of the work. Blue is compute-heavy, orange memory-heavy.",
            density_picture(figures.map),
        )
        + _figure(
            "Top of the prefix tree",
            "Each level splits the one above by prompt prefix; width is the share of the work, "
            "colour the compute density with shared prefixes computed once.",
            tree_picture(figures.tree) + f'<div class="legend">{density_legend()}</div>'
            '<p class="muted">compute time over memory time</p>',
        )
        + "</div></section>"
    )


def _figure(title: str, caption: str, picture: str) -> str:
    return (
        f"<div><h2>{escape(title)}</h2><figure><figcaption>{escape(caption)}</figcaption>"
        f"{picture}</figure></div>"
    )


def _table(figures: Figures) -> str:
    titles = (
        "policy",
        "makespan",
        "tokens/s",
        "of the bound",
        "prefix sharing",
        "steps",
        "preemptions",
        "planned in",
    )
    fastest = min(figures.policies, key=lambda one: one.makespan_s)
    rows = "".join(
        ('<tr class="best">' if one is fastest else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(one))
        + "</tr>"
        for one in figures.policies
    )
    heads = "".join(f"<th>{title}</th>" for title in titles)
    return f"<section><h2>Numbers</h2><table><tr>{heads}</tr>{rows}</table></section>"


def _cells(policy: PolicyFigure) -> tuple[str, ...]:
    return (
        policy.name,
        duration(policy.makespan_s),
        count(policy.throughput_tokens_per_s),
        share(policy.bound_ratio),
        share(policy.prefix_sharing),
        count(policy.steps),
        count(policy.preemptions),
        duration(policy.plan_wall_s),
    )
