"""`plan_window`: the requests that fit a stretch of time, planned; the others are for later."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.checks.arguments import number, one_of
from blendplan.cost.machine import Machine
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.demand import shared_demand
from blendplan.planning.filling import Trial, fill_in_parts, that_fit_alone
from blendplan.planning.options import PlanOptions
from blendplan.planning.outlook import Outlook
from blendplan.planning.part import take_part
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import Prepared
from blendplan.planning.replicas import plan_replicas
from blendplan.printable import show
from blendplan.requests.columns import Requests
from blendplan.tree.families import sharing_families

FIRST = ("work", "priority")
"""What goes first: families with the most work per second, or requests by their priority."""

_MOST_SKIPS = 4
_MOST_S = 3.2e9


@dataclass(frozen=True)
class Window:
    """A stretch of time, and what it is for.

    Attributes:
        within_s: its length in seconds.
        chance: probability with which the run must end within it, as far as output lengths decide.
        first: see `FIRST`.

    Raises:
        BlendplanError: one of them is of another type or out of its range.
    """

    within_s: float
    chance: float = 0.9
    first: str = FIRST[0]

    def __post_init__(self) -> None:
        number("within_s", self.within_s, 0.0, _MOST_S, above_least=True)
        number("chance", self.chance, 0.0, 1.0, above_least=True)
        one_of("first", self.first, FIRST)


def plan_window(
    prepared: Prepared, target: Machine, policy: str, window: Window, options: PlanOptions
) -> Plan:
    """Plan as many requests as fit a window.

    Requests that share a prefix are a family and stay together; families that do the most work per
    second come first, work being prompt and output tokens. With priorities, those of the lowest
    number come first, as in vLLM, and families count among equals. How many fit is found by
    planning: a plan that would not end in time is not taken. Requests that are too long for the
    window by themselves are left out before; of a family that is too long as a whole, a part is
    planned.

    Args:
        prepared: all requests.
        target: the machine of each engine.
        policy: name of the policy.
        window: how long the run may take.
        options: how to plan.

    Returns:
        The plan; under ``window`` its metadata say what was asked for, how many requests are left
        for later, and how many of these are too long by themselves.

    Raises:
        BlendplanError: not even one request fits.
    """

    def trial(chosen: Sequence[NDArray[np.int64]]) -> Trial:
        rows = np.sort(np.concatenate(chosen))
        plan, outlook = _planned(prepared, target, policy, rows, options)
        return Trial(plan, outlook.quantile(window.chance))

    alone_s = _alone_s(prepared, target, window.chance)
    rows = that_fit_alone(trial, alone_s, window.within_s)
    if not len(rows):
        shortest = np.argmin(alone_s, keepdims=True)
        name = prepared.requests.ids[int(shortest[0])].as_py()
        raise BlendplanError(
            f"not even one request fits {window.within_s:g} seconds: the shortest, {show(name)}, "
            f"takes {trial([shortest]).end_s:.3g} seconds by itself; give a longer time"
        )
    groups, seconds = _groups(prepared, target, window.first, rows)
    # A family that is too long is passed over for shorter ones; an urgent request is not.
    skips = _MOST_SKIPS if window.first == "work" else 0
    seconds = seconds / options.replicas
    made = fill_in_parts(trial, groups, seconds, alone_s, window.within_s, skips).plan
    said = {
        "within_s": window.within_s,
        "chance": window.chance,
        "first": window.first,
        "postponed": len(prepared.requests) - made.requests,
        "too_long": len(prepared.requests) - len(rows),
    }
    return Plan(made.table, made.metadata | {"window": said}, made.rejected)


def _planned(
    prepared: Prepared,
    target: Machine,
    policy: str,
    rows: NDArray[np.int64],
    options: PlanOptions,
) -> tuple[Plan, Outlook]:
    """The plan of some requests, and its makespans by chance."""
    part = take_part(prepared, target, rows, preserve_sharing=options.preserve_sharing)
    how: dict[str, Any] = {
        "seed": options.seed,
        "effort": options.effort,
        "replan": options.replan,
        "tail": options.tail,
        "progress": options.progress,
    }
    if options.replicas == 1:
        plan, predicted = plan_prepared(part, target, policy, **how)
    else:
        how["preserve_sharing"] = options.preserve_sharing
        plan, predicted = plan_replicas(part, target, policy, options.replicas, **how)
    assert predicted.outlook is not None, "plans have one"
    return plan, predicted.outlook


def _alone_s(prepared: Prepared, target: Machine, chance: float) -> NDArray[np.float64]:
    """A guess at how long each request takes if nothing else runs; float64 [n]."""
    outputs = np.quantile(prepared.expected.outcomes, chance, axis=1)
    compute_s, memory_s = target.costs.demand(prepared.workload.prompt_tokens, outputs)
    first = prepared.sequences.first()
    steps = np.maximum.reduceat(outputs, first)
    step_s = target.table.linear_s[1] + target.table.step_s
    return np.add.reduceat(compute_s + memory_s, first) + steps * step_s


def _groups(
    prepared: Prepared, target: Machine, first: str, rows: NDArray[np.int64]
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """Requests that stay together, in the order in which a window takes them.

    Args:
        prepared, target: as of `plan_window`.
        first: what goes first.
        rows: the requests that may be taken.

    Returns:
        The requests of each group; and its time on one engine, if nothing ran beside anything,
        float64 [g].
    """
    sequences, requests = prepared.sequences, prepared.requests
    outputs = prepared.expected.output_tokens
    compute_s, memory_s = shared_demand(
        target, prepared.tree, sequences, prepared.workload.prompt_tokens, outputs
    )
    time_s = compute_s + memory_s
    tokens = np.add.reduceat(prepared.workload.prompt_tokens + outputs, sequences.first())
    family = sharing_families(prepared.request_tree)
    rate = np.bincount(family, tokens) / np.maximum(np.bincount(family, time_s), 1e-12)
    urgency = priorities(requests) if first == "priority" else np.zeros(len(requests))
    order = rows[np.lexsort((rows, family[rows], -rate[family[rows]], urgency[rows]))]
    changes = (np.diff(family[order]) != 0) | (np.diff(urgency[order]) != 0)
    starts = np.append(0, np.flatnonzero(changes) + 1)
    return np.split(order, starts[1:]), np.add.reduceat(time_s[order], starts)


def priorities(requests: Requests) -> NDArray[np.float64]:
    """``priority`` in the body of each request, 0 where it has none, as in vLLM; float64 [n].

    Raises:
        BlendplanError: no request states one, or one of them is no number.
    """
    found = np.zeros(len(requests))
    stated = False
    bodies = () if requests.bodies is None else requests.bodies
    for row, body in enumerate(bodies):
        text = body.as_py()
        if text is None or b"priority" not in text:
            continue
        fields = json.loads(text)
        inner = fields.get("body")
        value = (inner if isinstance(inner, dict) else fields).get("priority")
        if value is None:
            continue
        name = f"priority of request {requests.ids[row].as_py()!r}"
        found[row], stated = number(name, value, -1e15, 1e15), True
    if not stated:
        source = requests.source or "the request set"
        raise BlendplanError(
            f"no request in {source} states a priority; give them a field priority, lower numbers "
            "first, or leave the choice to the work"
        )
    return found
