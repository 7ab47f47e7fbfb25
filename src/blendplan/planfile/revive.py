"""`plan_policy`: the policy that made a plan, in its first state again.

A plan holds what its policy knew of every request. The policy is made from that by the same
function as at planning, and from requests in the same order, that of the request file; so it is the
same policy, to the last bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.cost.reach import ALL_TOKENS, Reach, reach_from_metadata
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.kv_layout import KvLayout
from blendplan.planfile.columns import numbers, outcomes_of
from blendplan.policy.holding import GROWS_BY_ONE, Holding, holding_from_metadata
from blendplan.policy.known import PolicyInput, StepPrices
from blendplan.policy.make import make_policy
from blendplan.policy.state_machine import Policy

# Columns that tell what the planner knew of a request.
_KNOWN = [
    "answer",
    "prompt_tokens",
    "new_prompt_tokens",
    "output_tokens_mean",
    "output_tokens_outcomes",
    "density",
    "family",
    "depth_first",
    "by_density",
]


def in_file_order(table: pa.Table, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Rows of a plan, all or some of them, in the order of the request file; int64 [m].

    Answers of one request stand together in a plan, in their order.
    """
    source_row = numbers(table, "source_row")
    if rows is None:
        return np.argsort(source_row, kind="stable")
    rows = np.sort(rows)
    return rows[np.argsort(source_row[rows], kind="stable")]


def plan_policy(
    table: pa.Table, metadata: Mapping[str, Any], limits: EngineLimits, rows: NDArray[np.int64]
) -> Policy:
    """The policy of a plan over some of its rows, in its first state.

    Args:
        table, metadata: of the plan.
        limits: limits of the engine.
        rows: from `in_file_order`; the policy's request i is the plan's row ``rows[i]``.
    """
    return make_policy(
        metadata["policy"],
        known_of(table, metadata, rows),
        limits,
        parameters=metadata["policy_parameters"],
    )


def known_of(table: pa.Table, metadata: Mapping[str, Any], rows: NDArray[np.int64]) -> PolicyInput:
    """What the planner knew of the requests in these rows; m of them."""

    # Whether policies keep answers together is the plan's, whichever of its rows are left.
    alone = not numbers(table, "answer").any()
    table = table.select(_KNOWN).take(pa.array(rows))

    def column(name: str) -> NDArray[Any]:
        return numbers(table, name)

    # Where rows are left out, families are renumbered.
    _, family = np.unique(column("family"), return_inverse=True)
    first = column("answer") == 0
    return PolicyInput(
        depth_first=np.argsort(column("depth_first")),
        family=family.astype(np.int64, copy=False),
        by_density=np.argsort(column("by_density")),
        prompt_tokens=column("prompt_tokens").astype(np.float64),
        new_prompt_tokens=column("new_prompt_tokens"),
        outcomes=outcomes_of(table),
        density=column("density"),
        root_density=float(metadata["density"]),
        prices=StepPrices(**metadata["step_prices"]),
        request=None if alone else np.cumsum(first) - 1,
        reach=reach_of(metadata),
        holding=plan_holding(metadata),
    )


def reach_of(metadata: Mapping[str, Any]) -> Reach:
    """How far back the attention of a plan's model looks; all tokens where it does not say."""
    stated = metadata.get("reach")
    return ALL_TOKENS if stated is None else reach_from_metadata(stated, "reach")


def layout_of(metadata: Mapping[str, Any]) -> KvLayout | None:
    """The layout of the KV cache of a plan; None where all layers keep all tokens."""
    stated = metadata["engine"].get("kv_layout")
    return None if stated is None else KvLayout.from_metadata("engine.kv_layout", stated)


def plan_holding(metadata: Mapping[str, Any]) -> Holding:
    """What a request of a plan holds of the KV cache; what it has read where it does not say."""
    stated = metadata.get("holding")
    return GROWS_BY_ONE if stated is None else holding_from_metadata(stated, "holding")
