"""`write_pngs`: the pictures of a comparison as PNG files."""

from pathlib import Path

from blendplan.errors import BlendplanError
from blendplan.report.drawing import house_style, require_matplotlib, write_png
from blendplan.report.figures import Figures


def check_png_folder(directory: Path) -> None:
    """Raise what `write_pngs` would raise after the work; makes the folder where it is missing.

    Raises:
        BlendplanError: matplotlib is not installed, or the folder cannot be made.
    """
    require_matplotlib()
    if directory.is_file():
        raise BlendplanError(f"{directory} is a file; give a folder for the pictures")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BlendplanError(
            f"cannot make the folder {directory} ({error.strerror}); give another one"
        ) from error


def write_pngs(figures: Figures, directory: Path) -> list[Path]:
    """Write one PNG for each picture; returns the paths.

    Args:
        figures: from `draw_figures`.
        directory: made where it is missing.

    Raises:
        BlendplanError: as of `check_png_folder`, or a file cannot be written.
    """
    check_png_folder(directory)
    from blendplan.report.charts import charts

    paths = []
    for chart in charts(figures):
        with house_style():
            chart.figure.suptitle(chart.title, x=0.01, ha="left")
        path = directory / f"{chart.name}.png"
        write_png(chart.figure, path)
        paths.append(path)
    return paths
