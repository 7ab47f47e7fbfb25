"""`html_report`: a comparison as one HTML file that needs nothing else, not even a network."""

from html import escape
from pathlib import Path

from blendplan.report.drawing import require_matplotlib, svg
from blendplan.report.figures import Figures, PolicyFigure
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
p { margin: 0 0 8px; }
.lead { font-size: 18px; margin: 0; }
.muted, figcaption { color: #5b6673; font-size: 13px; }
section { background: #fff; border: 1px solid #e3e7ec; border-radius: 8px;
  padding: 18px 20px; margin-top: 16px; break-inside: avoid; }
.pair { display: grid; gap: 16px 32px;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; }
figcaption { margin-bottom: 6px; }
svg { width: 100%; height: auto; display: block; stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: inherit !important; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 14px; }
.facts div { border-left: 3px solid #e3e7ec; padding-left: 10px; }
.facts b { display: block; font-size: 17px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid #e3e7ec; }
th:first-child, td:first-child { text-align: left; }
th { color: #5b6673; font-weight: 500; font-size: 13px; }
tr.best td { font-weight: 600; }
@media print { body { background: #fff; } section { border-color: #ccd2d9; } }
"""


def write_html(figures: Figures, path: Path) -> None:
    """Write the report, whole or not at all.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(html_report(figures), encoding="utf-8")


def html_report(figures: Figures) -> str:
    """The report as one HTML document: no scripts, no fonts, no links.

    Raises:
        BlendplanError: matplotlib is not installed.
    """
    parts = [_heading(figures), *_pictures(figures), _table(figures)]
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
        f"KV cache, {figures.kv_unit}": rounded(figures.kv_tokens),
        "lower bound on the run": duration(figures.bound_s),
    }
    cells = "".join(f"<div><b>{value}</b>{name}</div>" for name, value in facts.items())
    return (
        f'<h1>{escape(first)}</h1><p class="lead">{escape(" ".join(others))}</p>'
        f'<p class="muted">{escape(figures.title)}: {escape(figures.model)} on {escape(gpus)}, '
        f"overlap exponent {figures.overlap:g}, {escape(figures.cost_model)} cost model, "
        f'simulated</p><div class="facts">{cells}</div>'
    )


def _pictures(figures: Figures) -> list[str]:
    """Sections of two pictures each."""
    require_matplotlib()
    from blendplan.report.charts import charts

    drawn = [
        f"<figure><h2>{escape(chart.title)}</h2><figcaption>{escape(chart.caption)}</figcaption>"
        f"{svg(chart.figure, chart.name, chart.label)}</figure>"
        for chart in charts(figures)
    ]
    return [
        f'<section class="pair">{left}{right}</section>'
        for left, right in zip(drawn[::2], drawn[1::2], strict=True)
    ]


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
