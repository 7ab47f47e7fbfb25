"""Predicted against measured kernel times, one picture per operator, one panel per GPU."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from benchmarks.accuracy_outcome import Outcome
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

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
            _picture(operator, wanted, note).savefig(
                folder / f"accuracy-{operator.replace('_', '-')}.png", dpi=90
            )
            plt.close("all")


def _picture(operator: str, outcomes: list[Outcome], note: str) -> Figure:
    gpus = [gpu for gpu in GPUS if any(outcome.gpu == gpu for outcome in outcomes)]
    figure, panels = plt.subplots(
        1,
        len(gpus),
        figsize=(2.5 * len(gpus) + 0.6, 3.1 if len(gpus) > 1 else 3.4),
        squeeze=False,
        layout="constrained",
    )
    for panel, gpu in zip(panels[0], gpus, strict=True):
        found = [outcome for outcome in outcomes if outcome.gpu == gpu]
        predicted_ms = 1e3 * np.concatenate([outcome.predicted_s for outcome in found])
        measured_ms = 1e3 * np.concatenate([outcome.measured_s for outcome in found])
        error = np.abs(predicted_ms / measured_ms - 1.0).mean()
        shown = np.random.default_rng(0).permutation(len(measured_ms))[:MOST_POINTS]
        # Whole decades, so that both axes have ticks with numbers.
        ends = np.log10([measured_ms.min(), measured_ms.max()])
        limits = 10.0 ** np.array([np.floor(ends[0]), np.ceil(ends[1])])
        panel.plot(limits, limits, color="0.2", linewidth=0.8)
        panel.plot(limits, 1.25 * limits, color="0.7", linewidth=0.6, linestyle="--")
        panel.plot(limits, limits / 1.25, color="0.7", linewidth=0.6, linestyle="--")
        panel.scatter(measured_ms[shown], predicted_ms[shown], s=3, alpha=0.4, linewidths=0)
        panel.set(xscale="log", yscale="log", xlabel="measured, ms", xlim=limits, ylim=limits)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(NullFormatter())
        panel.set_aspect("equal")
        panel.set_title(f"{gpu}, {len(measured_ms):,} rows, {100 * error:.1f} %", fontsize=9)
    panels[0][0].set_ylabel("predicted, ms")
    title = f"{WORDS[operator]}: {note}; dashed: 25 % off"
    figure.suptitle(title if len(gpus) > 1 else fill(title, 40), fontsize=10)
    return figure
