"""`Job`: what every task of a large plan knows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blendplan.cost.machine import Machine
from blendplan.errors import BlendplanError
from blendplan.lengths.registry import AUTO
from blendplan.planning.options import PlanOptions
from blendplan.requests.shape import Shape

TASK_BYTES = 96 << 20
"""Prompts and bodies that a run holds, about, where nothing else is said."""

# Predictors that look at one request at a time, so that it does not matter which others are there.
_ONE_BY_ONE = (AUTO, "prior", "known")


@dataclass(frozen=True)
class Job:
    """How request files are planned; sent to every task.

    Attributes:
        folder: where tasks leave what they hand over; all of them see it.
        target: the machine of each replica.
        model_dir: folder of a model whose tokenizer counts, None for the built-in estimate.
        skip: whether bad requests are left out; else the first one ends all.
        shape: what rows and lines become before they are read.
        policy: which request goes next.
        how: the other options of planning.
        task_bytes: prompts and bodies that a run holds, about, and half of what a range does; a
            task takes a few times as much.
    """

    folder: Path
    target: Machine
    model_dir: Path | None
    skip: bool
    shape: Shape
    policy: str
    how: PlanOptions
    task_bytes: int

    def __post_init__(self) -> None:
        if self.how.lengths not in _ONE_BY_ONE:
            raise BlendplanError(
                f"lengths {self.how.lengths!r} cannot be had for a folder: what learns lengths "
                "needs all requests at once; give auto, prior or known, or plan into one file"
            )

    @property
    def range_bytes(self) -> int:
        """Prompts and bodies that a range holds, about."""
        return 2 * self.task_bytes

    def working_in(self, folder: Path) -> "Job":
        """The same with another folder, and without what cannot be sent to tasks."""
        return replace(self, folder=folder, how=replace(self.how, progress=None))

    def options(self) -> dict[str, Any]:
        """As the manifest says how the plan was made; JSON values."""
        how = {name: value for name, value in vars(self.how).items() if name != "progress"}
        on_error = "skip" if self.skip else "fail"
        return {"policy": self.policy, **how, "on_error": on_error, **self.shape.as_options()}
