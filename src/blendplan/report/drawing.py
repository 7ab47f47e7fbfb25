"""How pictures look, and how they become files: matplotlib (the extra ``plots``) without pyplot.

Pictures are drawn within `house_style`, so that a matplotlibrc of the user's changes nothing, and
the same numbers give the same bytes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blendplan.errors import BlendplanError
from blendplan.whole_file import replacing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Blue and orange stay apart for every kind of colour blindness, and in grey.
COMPUTE = "#1f6fb4"
MEMORY = "#d9661f"
INK = "#1b2430"
MUTED = "#5b6673"
GRID = "#e3e7ec"
PLAIN = "#9aa6b4"

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": PLAIN,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.titlesize": 11,
    "font.family": "sans-serif",
    "font.sans-serif": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
WIDTH = 6.3  # inches; a picture is as wide as half a page of the report
_UNITS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_HINT = "hint: "


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        name: of its file.
        title: of the picture.
        caption: how to read it.
        label: what it says, for those who cannot see it.
        figure: the drawing, without title and caption.
    """

    name: str
    title: str
    caption: str
    label: str
    figure: "Figure"


def require_matplotlib() -> None:
    """Raise now what drawing would raise after the work.

    Raises:
        BlendplanError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise BlendplanError("pictures need matplotlib; pip install 'blendplan[plots]'")


@contextmanager
def house_style() -> Iterator[None]:
    """Within it, figures are made and saved in the style of the project, whatever the user's is."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in inches, which fits its parts into itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def time_axis(axis: "Axis", high_s: float, ticks: int = 5) -> float:
    """Ticks at round moments with their unit; returns that unit in seconds, to divide data by."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    unit_s, sign = next((unit for unit in _UNITS if high_s >= 2 * unit[0]), _UNITS[-1])
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(StrMethodFormatter(f"{{x:g}} {sign}"))
    return unit_s


def hint(artist: "Artist", words: str) -> None:
    """What a page shows when the mouse rests on the artist."""
    artist.set_gid(_HINT + words)


def svg(figure: "Figure", name: str, label: str) -> str:
    """The figure as an element of an HTML page, which sets the font.

    Args:
        figure: made within `house_style`.
        name: of the picture; no two on a page may have the same one.
        label: what the picture says, for those who cannot see it.
    """
    import matplotlib

    file = StringIO()
    with house_style():
        # What is referred to within the picture is named by a hash of this.
        matplotlib.rcParams["svg.hashsalt"] = name
        figure.savefig(
            file,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
            transparent=True,
        )
    _, start, drawn = file.getvalue().partition("<svg ")
    drawn = re.sub(r"<style.*?</style>", "", drawn, count=1, flags=re.DOTALL)
    drawn = re.sub(rf"<g id=(['\"]){_HINT}(.*?)\1>", r"<g><title>\2</title>", drawn)
    # Other groups are numbered alike in every picture.
    drawn = re.sub('<g id="[^"]*"', "<g", drawn)
    # Hundredths of a point are enough.
    drawn = re.sub('\\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), drawn)
    return f'{start}role="img" aria-label="{escape(label)}" {drawn.strip()}'


def write_png(figure: "Figure", path: Path, *, dots_per_inch: int = 150) -> None:
    """Write the figure as a PNG file, whole or not at all.

    Raises:
        BlendplanError: the path cannot be written.
    """
    with house_style(), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dots_per_inch, metadata={"Software": None})
