"""`html_report`: a comparison as one HTML file that needs nothing else, not even a network."""

from html import escape
from pathlib import Path

from blendplan.report.drawing import require_matplotlib, svg
from blendplan.report.figures import Figures, PolicyFigure
from blendplan.report.page import facts, page, table
from blendplan.report.quantities import count, duration, rounded, share
from blendplan.whole_file import replacing


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
    return page(figures.title, parts)


def _heading(figures: Figures) -> str:
    first, *others = figures.verdict.sentences
    gpus = f"{figures.tp} x {figures.gpu}" if figures.tp > 1 else figures.gpu
    numbers = {
        "requests": count(figures.requests),
        "prompt tokens": rounded(figures.prompt_tokens),
        "output tokens": rounded(figures.output_tokens),
        "compute over memory time": rounded(figures.density),
        "prefix sharing possible": share(figures.optimal_sharing),
        "KV cache, tokens": rounded(figures.kv_tokens),
        "lower bound on the run": duration(figures.bound_s),
    }
    return (
        f'<h1>{escape(first)}</h1><p class="lead">{escape(" ".join(others))}</p>'
        f'<p class="muted">{escape(figures.title)}: {escape(figures.model)} on {escape(gpus)}, '
        f"overlap exponent {figures.overlap:g}, {escape(figures.cost_model)} cost model, "
        f"simulated</p>{facts(numbers.items())}"
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
    rows = [(one is fastest, _cells(one)) for one in figures.policies]
    return f"<section><h2>Numbers</h2>{table(titles, rows)}</section>"


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
