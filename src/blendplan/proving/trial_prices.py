"""`TrialPrices`: whether the prices of a plan were right, and better ones from the same run."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from blendplan.cost.calibration.from_steps import StepLog, read_step_log
from blendplan.cost.calibration.of_engine import calibrate_engine
from blendplan.cost.machine import Machine
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.proving.priced_steps import priced_steps
from blendplan.proving.trial_folder import PLANNED, WAYS, TrialFolder

# Points of the picture.
_POINTS = 400


@dataclass(frozen=True)
class TrialPrices:
    """Steps of both ways.

    Attributes:
        logs: of all runs of a way, by way; empty where there are too few steps to learn from.
        why: what was in the way then.
    """

    logs: dict[str, StepLog]
    why: str = ""

    @classmethod
    def read(cls, folder: TrialFolder) -> "TrialPrices":
        """Those in the folder of a trial whose runs are done."""
        try:
            return cls({way: _log(folder, way) for way in WAYS})
        except BlendplanError as error:
            return cls({}, str(error))

    def fitted(self, target: Machine) -> GpuSpec:
        """The GPU with prices of all steps.

        Each way has steps that the other has few of, and both are to be predicted.
        """
        return calibrate_engine(_joined(self.logs.values()), target.gpu, target.model, target.tp)

    def errors(self, target: Machine) -> dict[str, Any]:
        """How far the prices of a machine are off, by way; see `PricedSteps.as_dict`."""
        return {way: priced_steps(log, target.table).as_dict() for way, log in self.logs.items()}

    def points(self, target: Machine) -> dict[str, list[float]]:
        """Predicted and measured time and kind of some planned steps, evenly over the run."""
        priced = priced_steps(self.logs[PLANNED], target.table)
        rows = slice(None, None, max(1, len(priced) // _POINTS))
        return {
            name: getattr(priced, name)[rows].tolist()
            for name in ("predicted_s", "measured_s", "kind")
        }


def _log(folder: TrialFolder, way: str) -> StepLog:
    """The steps of all runs of a way."""
    repeats = [run["repeat"] for run in folder.runs if run["way"] == way]
    return _joined(read_step_log(folder.step_log(way, repeat)) for repeat in repeats)


def _joined(logs: Iterable[StepLog]) -> StepLog:
    """Steps of several runs, one run after the other."""
    runs = list(logs)
    columns = [item.name for item in fields(StepLog) if item.name != "reach"]
    joined = {name: np.concatenate([getattr(log, name) for log in runs]) for name in columns}
    return StepLog(**joined, reach=runs[0].reach)
