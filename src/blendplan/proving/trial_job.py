"""`TrialJob`: the requests of a trial, what they are planned for, and plans of an excerpt."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blendplan.cost.machine import Machine, machine
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.planfile.check import column_digest
from blendplan.planfile.plan import Plan
from blendplan.planning.options import PlanOptions
from blendplan.planning.part import take_part
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import Prepared, Progress, prepare
from blendplan.proving.excerpt import Excerpt, excerpt
from blendplan.proving.trial_folder import INPUT, PLANNED
from blendplan.proving.trial_runs import Start
from blendplan.requests.columns import Requests
from blendplan.requests.rejects import NO_REJECTS

INPUT_POLICY = "fcfs"


@dataclass(frozen=True)
class TrialJob:
    """All requests, and how they are planned.

    Attributes:
        requests, gpu, model, machine_args, policy: as of `trial`.
        options: further ones.
        stage: called as planning advances.
    """

    requests: Requests
    gpu: str | Path | GpuSpec
    model: str | Path | ModelSpec
    machine_args: Mapping[str, Any]
    policy: str
    options: PlanOptions
    stage: Progress

    @cached_property
    def target(self) -> Machine:
        """The machine that the excerpt is planned for."""
        return machine(self.gpu, self.model, **self.machine_args)

    def planned(
        self, most: int, serving: Mapping[str, Any] | None
    ) -> tuple[Excerpt, dict[str, Plan]]:
        """An excerpt, and its plan either way; lengths are predicted from the whole."""
        whole = prepare(
            # What is left out of the job, or answered with others, is no part of an excerpt.
            replace(self.requests, rejects=NO_REJECTS, copies=None),
            self.target,
            lengths=self.options.lengths,
            preserve_sharing=self.options.preserve_sharing,
            seed=self.options.seed,
            progress=self.stage,
        )
        chosen = excerpt(whole.requests, whole.request_tree, most)
        part = take_part(
            whole, self.target, chosen.rows, preserve_sharing=self.options.preserve_sharing
        )
        made = {
            INPUT: self._plan(part, INPUT_POLICY),
            PLANNED: self._plan(part, self.policy),
        }
        return chosen, {way: plan.saying(serving=serving) for way, plan in made.items()}

    def _plan(self, part: Prepared, policy: str) -> Plan:
        made, _ = plan_prepared(
            part,
            self.target,
            policy,
            seed=self.options.seed,
            effort=self.options.effort,
            replan=self.options.replan,
            progress=self.stage,
        )
        return made

    def identity(self, start: Start, most: int, plans: Mapping[str, Plan]) -> dict[str, Any]:
        """What the runs of a trial depend on, by the names of the command line."""
        return {
            "REQUESTS": [self.requests.sha256, len(self.requests)],
            "--requests": most,
            "--engine": start.engine,
            "--load": start.load,
            "--engine-arg": dict(start.engine_args),
            "the engine's flags": list(start.flags),
            "--policy": self.policy,
            "--gpu": self.target.gpu.name,
            "--model": self.target.model.name,
            "the engine's limits": self.target.limits.as_metadata(),
            "the plans": {way: column_digest(plan.table) for way, plan in plans.items()},
        }
