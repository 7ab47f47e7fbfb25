"""A live policy goes on with other requests, as they move between the engines of a run."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.replanning import Replanning
from blendplan.planfile.plan import Plan
from blendplan.planfile.revive import in_file_order, known_of, plan_policy
from blendplan.policy.live import DONE, LivePolicy


def regrouped_rows(
    plan: Plan, policy: LivePolicy, gone: Collection[int], taken: Collection[int]
) -> NDArray[np.int64]:
    """Rows that a policy has when it loses some requests and is given others; int64.

    A policy that learns keeps those that have ended; to others they are of no use.

    Args:
        plan: n rows.
        policy: over some of them.
        gone: rows that are no longer its own; requests of which any is, leave it.
        taken: rows that are its own from now on, all answers of each request.
    """
    rows = policy.rows
    request = np.cumsum(plan.column("answer") == 0)[rows]
    leaves = np.isin(rows, np.array(list(gone), dtype=np.int64))
    stays = ~np.isin(request, request[leaves])
    if not policy.looks_at_lengths:
        stays &= np.isin(request, request[policy.status_of(rows) != DONE])
    new = np.array(list(taken), dtype=np.int64)
    return in_file_order(plan.table, np.union1d(rows[stays], new))


def regroup(
    plan: Plan, policy: LivePolicy, replanning: Replanning | None, rows: NDArray[np.int64]
) -> list[int]:
    """Arrange anew what waits, with other requests.

    Args:
        plan, policy: as above.
        replanning: what learns for it.
        rows: from `regrouped_rows`, at least one.

    Returns:
        as of `LivePolicy.regroup`.
    """
    known = known_of(plan.table, plan.metadata, rows)
    if replanning is not None:
        known = replanning.regroup(known, policy.numbers(rows))
    return policy.regroup(
        rows, known, lambda: plan_policy(plan.table, plan.metadata, policy.limits, rows)
    )
