"""`price_log`: what the steps of a log should have taken."""

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.calibration.from_steps import StepLog
from blendplan.cost.reach import reach_as_metadata
from blendplan.cost.step import StepTable, price_steps
from blendplan.errors import BlendplanError


def counts_alike(log: StepLog, table: StepTable) -> bool:
    """Whether a log counts pairs and tokens read by the reach that prices are for."""
    return bool(reach_as_metadata(log.reach) == reach_as_metadata(table.reach))


def price_log(log: StepLog, table: StepTable) -> NDArray[np.float64]:
    """Seconds of each step by the rule of the simulated engine; float64 [steps].

    A log does not say which of a step's prefills complete: all of its sequences are taken to sample
    a token, which prices the output head of a chunked prompt once too often.

    Args:
        log: from `read_step_log`.
        table: prices, overlap included, such as a machine's.

    Raises:
        BlendplanError: a step that is larger than the table, or pairs and tokens read that were
            counted by another reach than the table's.
    """
    if not counts_alike(log, table):
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
    return predicted_s
