"""`page`: the frame of an HTML report, which needs nothing else, not even a network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from blendplan.report.drawing import Chart, require_matplotlib, svg
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
.wide { overflow-x: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f6f8; padding: 10px;
  border-radius: 6px; margin: 8px 0 0; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid #e3e7ec; }
th:first-child, td:first-child { text-align: left; }
th { color: #5b6673; font-weight: 500; font-size: 13px; }
tr.best td { font-weight: 600; }
@media print { body { background: #fff; } section { border-color: #ccd2d9; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """One HTML document: no scripts, no fonts, no links.

    Args:
        title: of the page, as text.
        parts: HTML of its body, in order.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: blendplan</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def write_page(draw: Callable[[], str], path: Path) -> None:
    """Write what is drawn, whole or not at all.

    Args:
        draw: makes the document; only called where pictures can be drawn.
        path: of the page.

    Raises:
        BlendplanError: matplotlib is not installed, or the path cannot be written.
    """
    require_matplotlib()
    with replacing(path) as temporary:
        temporary.write_text(draw(), encoding="utf-8")


def facts_grid(facts: Mapping[str, str]) -> str:
    """Figures in large type, each with what it is."""
    cells = (f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in facts.items())
    return f'<div class="facts">{"".join(cells)}</div>'


def table(heads: Iterable[str], rows: Sequence[Sequence[str]], best: int | None = None) -> str:
    """A table of texts; the first column is flush left, and a bar scrolls it where it is too wide.

    Args:
        heads: titles of the columns.
        rows: its cells.
        best: number of the row that stands out, from 0.
    """
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    body = "".join(
        f'<tr class="best">{line}</tr>' if number == best else f"<tr>{line}</tr>"
        for number, line in enumerate(lines)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def picture(chart: Chart) -> str:
    """A chart with its title and caption."""
    return (
        f"<figure><h2>{escape(chart.title)}</h2><figcaption>{escape(chart.caption)}</figcaption>"
        f"{svg(chart.figure, chart.name, chart.label)}</figure>"
    )
