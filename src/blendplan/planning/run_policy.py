"""`run_policy`: what a policy comes to, by simulation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendplan.cost.machine import Machine
from blendplan.planning.bound import Bound
from blendplan.planning.outlook import Outlook, outlook
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.schedule_bound import schedule_bound
from blendplan.planning.search import best_parameters
from blendplan.planning.tail import Tail
from blendplan.policy.make import make_policy
from blendplan.policy.registry import POLICIES
from blendplan.policy.reviser import Reviser, Unsure, steps_between_looks
from blendplan.policy.state_machine import Parameters, Policy
from blendplan.simulator.simulate import SimulatedRun, simulate_run


@dataclass(frozen=True)
class Prediction:
    """What a policy comes to on n requests.

    Attributes:
        run: the simulated run; of several replicas, all of them side by side.
        bound: lower bound on the makespan of any schedule, on as many replicas.
        parameters: what the policy was made with.
        replicas: engines that share the requests.
        replan: after how many steps the run's progress is looked at, and what was learned when;
            JSON values. None where nothing is learned while it runs.
        outlook: what else the makespan may become, None where that was not worked out.
        trade: what a `Tail` costs and gets, None where none was asked for.
    """

    run: SimulatedRun
    bound: Bound
    parameters: Parameters
    replicas: int = 1
    replan: dict[str, Any] | None = None
    outlook: Outlook | None = None
    trade: dict[str, Any] | None = None


def run_policy(
    prepared: Prepared,
    target: Machine,
    policy: str,
    *,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    progress: Progress | None = None,
    parameters: Parameters | None = None,
    tail: Tail | None = None,
    chances: bool = True,
) -> Prediction:
    """Simulate one policy, and bound the makespan of any.

    Args:
        prepared: the requests.
        target: the machine.
        policy: name of the policy.
        seed: for policies that draw random numbers.
        effort: how many of its candidates are tried; see `best_parameters`.
        replan: whether unsure output lengths are learned while it runs.
        progress: called as the simulation advances.
        parameters: what to make the policy with, where that has been found out already.
        tail: how much longer the run may be for requests to be done sooner.
        chances: whether to work out what else the makespan may become.
    """
    workload = prepared.workload
    report = progress or (lambda stage, done, total: None)
    run = trade = None
    if parameters is None:
        parameters, run, trade = best_parameters(
            prepared,
            target,
            POLICIES.get(policy),
            effort=effort,
            seed=seed,
            tail=tail,
            advance=lambda done, total: report(f"choosing settings of {policy}", done, total),
        )
    trial = _Trial(prepared, target, policy, seed, parameters, replan)
    chosen, reviser = trial.fresh()
    if run is None or reviser is not None:
        run = trial.simulated(
            workload.output_tokens,
            chosen,
            reviser,
            lambda done, total: report(f"simulating {policy}", done, total),
        )
    found = None
    if chances:
        report("simulating other output lengths", 0, 0)
        found = outlook(
            prepared,
            target,
            run.makespan_s,
            lambda outputs: trial.simulated(outputs, trial.fresh()[0], None).makespan_s,
        )
    bound = schedule_bound(prepared, target, workload.output_tokens, preemptions=run.preemptions)
    told = None
    if reviser is not None:
        told = {"every_steps": trial.every_steps} | reviser.as_dict()
    return Prediction(run, bound, chosen.parameters, replan=told, outlook=found, trade=trade)


@dataclass(frozen=True)
class _Trial:
    """Runs of one plan, whatever the output lengths; fields are arguments of `run_policy`."""

    prepared: Prepared
    target: Machine
    policy: str
    seed: int
    parameters: Parameters
    replan: bool

    def fresh(self) -> tuple[Policy, Reviser | None]:
        """The policy at its start, and what revises it as lengths are learned."""
        chosen = make_policy(
            self.policy,
            self.prepared.expected,
            self.target.limits,
            seed=self.seed,
            parameters=self.parameters,
        )
        learns = self.replan and chosen.revise is not None and self.prepared.expected.unsure.any()
        return chosen, _reviser(self.prepared, self.target) if learns else None

    @cached_property
    def every_steps(self) -> int:
        """Steps after which the run's progress is looked at."""
        return steps_between_looks(_least_steps(self.prepared, self.target))

    def simulated(
        self,
        output_tokens: NDArray[np.int32],
        chosen: Policy,
        reviser: Reviser | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SimulatedRun:
        """The run with these output lengths; policy and reviser are used up."""
        return simulate_run(
            replace(self.prepared.workload, output_tokens=output_tokens),
            chosen,
            self.target.limits,
            self.target.table,
            layout=self.target.layout,
            progress=progress,
            revise=reviser,
            revise_every=1 if reviser is None else self.every_steps,
        )


def _reviser(prepared: Prepared, target: Machine) -> Reviser:
    unsure = Unsure(
        lambda: prepared.features,
        prepared.lengths,
        prepared.sequences.spread(prepared.requests.max_tokens),
    )
    return Reviser(prepared.expected, unsure, target.limits)


def _least_steps(prepared: Prepared, target: Machine) -> int:
    """Fewest steps that the run can take if every length is as expected."""
    outputs = np.maximum(1, np.rint(prepared.expected.output_tokens)).astype(np.int64)
    return schedule_bound(prepared, target, outputs).steps
