"""The parts of a proof by name, in the order in which they run: one row each."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from blendplan.proving.bench import Bench


class Row(NamedTuple):
    """What is known of a part before it is run.

    Attributes:
        title: what it measures, a few words.
        module: of this folder, with a function ``measure``: it gets a `Bench` and returns JSON
            values.
        needs_gpu: whether it says nothing without one.
        time_share: share of the time that must be left for it to begin: the runs come last and
            matter most.
    """

    title: str
    module: str
    needs_gpu: bool = False
    time_share: float = 0.0

    def measure(self, bench: "Bench") -> dict[str, Any]:
        """Measure it.

        Raises:
            BlendplanError: it cannot be measured.
            TimeIsOverError: with what was measured, which is kept.
        """
        values: dict[str, Any] = import_module(f"{__package__}.{self.module}").measure(bench)
        return values


PARTS = {
    "kernels": Row("times of the GPU's kernels", "kernels", needs_gpu=True),
    "steps": Row("times of the engine's steps", "steps"),
    "graphs": Row("CUDA graphs and launches", "graphs", needs_gpu=True, time_share=0.6),
    "overlap": Row("overlap of compute and memory", "overlap", needs_gpu=True, time_share=0.5),
    "runs": Row("orders against each other", "runs"),
}
