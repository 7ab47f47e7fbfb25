"""`priced_steps`: the cost model's time of each step of a log, beside the time that it took."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.calibration.priced_log import price_log
from blendplan.cost.step import StepTable

KINDS = ("decode", "prefill", "mixed")
"""Kinds of steps by what they compute: decodes alone, prompt tokens alone, or both."""


@dataclass(frozen=True)
class PricedSteps:
    """Steps as predicted and as measured.

    Attributes:
        predicted_s, measured_s: time of each step; float64 [steps].
        kind: of each step, as an index into `KINDS`; int8 [steps].
    """

    predicted_s: NDArray[np.float64]
    measured_s: NDArray[np.float64]
    kind: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.measured_s)

    def as_dict(self) -> dict[str, Any]:
        """The figures of all steps, and under ``kinds`` those of each of `KINDS`; JSON values.

        ``steps`` and their ``measured_s`` and ``predicted_s`` in sum; ``time_share`` of all
        measured time; ``total_error``, by which the predicted sum is longer, as a share of the
        measured one; ``median_error`` and ``mean_error`` of single steps, both of the absolute
        error as a share of the step's measured time. Errors are None where there are no steps.
        """
        chosen = {name: self.kind == kind for kind, name in enumerate(KINDS)}
        whole = self._figures(np.ones(len(self), np.bool_))
        return whole | {"kinds": {name: self._figures(rows) for name, rows in chosen.items()}}

    def _figures(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        predicted_s, measured_s = self.predicted_s[rows], self.measured_s[rows]
        total_s = float(measured_s.sum())
        figures: dict[str, Any] = {
            "steps": len(measured_s),
            "measured_s": total_s,
            "predicted_s": float(predicted_s.sum()),
            "time_share": total_s / max(float(self.measured_s.sum()), np.finfo(np.float64).tiny),
        }
        if not len(measured_s):
            return figures | dict.fromkeys(("total_error", "median_error", "mean_error"))
        error = np.abs(predicted_s / measured_s - 1.0)
        return figures | {
            "total_error": figures["predicted_s"] / total_s - 1.0,
            "median_error": float(np.median(error)),
            "mean_error": float(error.mean()),
        }


def priced_steps(log: StepLog, table: StepTable) -> PricedSteps:
    """What each step of a log should have taken, beside what it took.

    Args:
        log: from `read_step_log`; every step took some time.
        table: as of `price_log`.

    Raises:
        BlendplanError: as `price_log`.
    """
    prompts, decodes = np.rint(log.prefill_tokens) > 0, np.rint(log.decode_tokens) > 0
    kind = np.where(~prompts, 0, np.where(~decodes, 1, 2)).astype(np.int8)
    return PricedSteps(price_log(log, table), log.time_s, kind)
