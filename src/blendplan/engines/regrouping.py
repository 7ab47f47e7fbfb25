"""A live policy for what is left, and how it goes on when requests move between engines."""

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.protocol import Session
from blendplan.engines.replanning import Replanning
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.plan import Plan
from blendplan.planfile.rerun import every_steps, reviser_of
from blendplan.planfile.revive import in_file_order, known_of, plan_policy
from blendplan.policy.live import DONE, LivePolicy


def compile_policy(plan: Plan, limits: EngineLimits) -> None:
    """Call all that a run calls of a plan's policy once, before the time of a run counts.

    The first call of a kernel compiles it, or loads it from the cache.

    Args:
        plan: at least one row.
        limits: of the engine.
    """
    first = np.flatnonzero(np.cumsum(plan.column("answer") == 0) == 1)
    policy = plan.live_policy(limits, left=first)
    policy.begin_step(0.0)
    policy.upcoming(1)
    row = policy.next_row()
    if row >= 0:
        policy.admitted(row)
        policy.preempted([row])
        policy.resumed([row])
        policy.finished([row])
    policy.shares()


def policy_over(
    plan: Plan,
    limits: EngineLimits,
    session: Session,
    left: NDArray[np.int64],
    lengths: NDArray[np.int32],
    remark: Callable[[str], None],
) -> tuple[LivePolicy, Replanning | None]:
    """The policy of a plan over rows that are left, and what learns for it, if anything does.

    Args:
        plan: n rows.
        limits: of the engine.
        session: says whether lengths are learned, and whether others run the other rows.
        left: rows, at least one.
        lengths: output length of each row that has ended, kept up to date; int32 [n].
        remark: called with a line when it cannot go on learning.
    """
    policy = plan.live_policy(limits, left=left)
    if not session.replan:
        return policy, None
    reviser = reviser_of(plan, limits, left, lengths, shared=session.shared)
    if reviser is None:
        return policy, None
    return policy, Replanning(policy, reviser, every_steps(plan), lengths, remark)


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
