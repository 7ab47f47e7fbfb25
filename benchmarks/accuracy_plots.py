"""Predicted against measured kernel times, one picture per operator, one panel per GPU."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from benchmarks.accuracy_outcome import Outcome
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from blendplan.report.drawing import COMPUTE, INK, PLAIN, house_style, new_figure, write_png

MOST_POINTS = 1500  # per GPU, drawn evenly
GPUS = ("a100-80g", "h100-80g", "h200", "b200", "l40s")
DTYPES = {"gemm": "bf16", "decode_attention": "bf16", "context_attention": "bf16"}
WORDS = {
    "gemm": "GEMM",
    "decode_attention": "Decode attention",
    "context_attention": "Prefill attention",
    "all_reduce": "All-reduce",
    "linear_layer_sum": "Linear layers of one Llama-3-8B layer",
}


def draw(outcomes: Sequence[Outcome], folder: Path, note: str) -> None:
    """Write ``accuracy-<operator>.png`` for every operator that has outcomes.

    Args:
        outcomes: of the rows with goals.
        folder: where to.
        note: how the predictions were made; goes under the title.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for operator in WORDS:
        wanted = [o for o in outcomes if o.operator == operator]
        wanted = [o for o in wanted if o.dtype == DTYPES.get(operator, o.dtype)]
        if wanted:
            with house_style():
                figure = _picture(operator, wanted, note)
            path = folder / f"accuracy-{operator.replace('_', '-')}.png"
            write_png(figure, path, dots_per_inch=90)


def _picture(operator: str, outcomes: list[Outcome], note: str) -> Figure:
    gpus = [gpu for gpu in GPUS if any(outcome.gpu == gpu for outcome in outcomes)]
    figure = new_figure(2.5 * len(gpus) + 0.6, 3.1 if len(gpus) > 1 else 3.4)
    panels = figure.subplots(1, len(gpus), squeeze=False)[0]
    for axes, gpu in zip(panels, gpus, strict=True):
        _panel(axes, gpu, [outcome for outcome in outcomes if outcome.gpu == gpu])
    panels[0].set_ylabel("predicted, ms")
    title = f"{WORDS[operator]}: {note}; dashed: 25 % off"
    figure.suptitle(title if len(gpus) > 1 else fill(title, 36))
    return figure


def _panel(axes: Axes, gpu: str, outcomes: list[Outcome]) -> None:
    predicted_ms = 1e3 * np.concatenate([outcome.predicted_s for outcome in outcomes])
    measured_ms = 1e3 * np.concatenate([outcome.measured_s for outcome in outcomes])
    error = np.abs(predicted_ms / measured_ms - 1.0).mean()
    shown = np.random.default_rng(0).permutation(len(measured_ms))[:MOST_POINTS]
    # Whole decades, so that both axes have ticks with numbers.
    ends = np.log10([measured_ms.min(), measured_ms.max()])
    limits = 10.0 ** np.array([np.floor(ends[0]), np.ceil(ends[1])])
    axes.plot(limits, limits, color=INK, linewidth=0.8)
    for off in (1.25, 1 / 1.25):
        axes.plot(limits, off * limits, color=PLAIN, linewidth=0.8, linestyle="--")
    axes.scatter(
        measured_ms[shown], predicted_ms[shown], s=3, alpha=0.4, linewidths=0, color=COMPUTE
    )
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", xlim=limits, ylim=limits)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=5))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_aspect("equal")
    axes.set_title(f"{gpu}, {len(measured_ms):,} rows, {100 * error:.1f} %", loc="center")
