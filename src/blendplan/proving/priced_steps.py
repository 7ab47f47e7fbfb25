"""`priced_steps`: the cost model's time of each step of a log, beside the time that it took."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.reach import reach_as_metadata
from blendplan.cost.step import StepTable, price_steps
from blendplan.errors import BlendplanError

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
    """What each step of a log should have taken, by the rule of the simulated engine.

    A log does not say which of a step's prefills complete: all of its sequences are taken to sample
    a token, which prices the output head of a chunked prompt once too often.

    Args:
        log: from `read_step_log`; every step took some time.
        table: prices, overlap included, such as a machine's.

    Raises:
        BlendplanError: a step that is larger than the table, or pairs and tokens read that were
            counted by another reach than the table's.
    """
    if reach_as_metadata(log.reach) != reach_as_metadata(table.reach):
        raise BlendplanError(
            "the step log counts attention by another reach than the prices do; price it for the "
            "model, the GPU and the profile that it was recorded with"
        )
    prefill, decode, sequences = (
        np.rint(column).astype(np.int64)
        for column in (log.prefill_tokens, log.decode_tokens, log.sequences)
    )
    for what, largest, most in (
        ("tokens", prefill + decode, len(table.linear_s) - 1),
        ("sequences", sequences, len(table.head_s) - 1),
    ):
        if len(largest) and largest.max() > most:
            raise BlendplanError(
                f"the step log has a step of {largest.max()} {what}; the prices are for steps of "
                f"up to {most}: price it under the limits of the engine that took it"
            )
    _, _, predicted_s = price_steps(
        table, prefill, log.prefill_pairs, decode, log.kv_tokens_read, sequences
    )
    kind = np.where(prefill == 0, 0, np.where(decode == 0, 1, 2)).astype(np.int8)
    return PricedSteps(predicted_s, log.time_s, kind)
