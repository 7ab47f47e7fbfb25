"""`Job`: what is run on an engine, from a plan or from requests that nobody has planned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import AskingEngine, Engine, Launch
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.check import column_digest
from blendplan.planfile.plan import Plan
from blendplan.planfile.rerun import every_steps, reviser_of
from blendplan.planfile.rows import Work, work_of, work_of_requests
from blendplan.policy.live import LivePolicy
from blendplan.policy.queue import queue_policy
from blendplan.policy.reviser import Reviser
from blendplan.policy.siblings import keep_together
from blendplan.requests.columns import Requests
from blendplan.requests.sequences import sequences_of
from blendplan.tree.build import build_tree


class LivePolicyOf(Protocol):
    """How the policy of a job is made, once the engine has told its limits."""

    def __call__(self, limits: EngineLimits, left: NDArray[np.int64]) -> LivePolicy:
        """The policy over the rows that are left, in its first state."""


class ReviserOf(Protocol):
    """How what learns from a job is made, once the engine has told its limits."""

    def __call__(
        self, limits: EngineLimits, left: NDArray[np.int64], ended: NDArray[np.int32]
    ) -> Reviser | None:
        """What learns for the policy over the rows that are left; None where nothing does.

        Args:
            limits: of the engine.
            left: rows; int64 [m].
            ended: output length of the rows that have an answer already, else 0; int32 [n].
        """


@dataclass(frozen=True)
class Job:
    """n sequences that go to an engine.

    Attributes:
        rows: the sequences, by requests.
        digest: what tells this job from others, for its journal.
        predicted: totals that are predicted, by the names of a plan's metadata; empty for none.
        planned: ``start_s``, ``finish_s`` and ``output_tokens_mean`` of each row, for the request
            log; None where nothing was planned.
        limits: those that were planned for; None where the engine's own are taken.
        live_policy: the policy that is asked what to admit.
        reviser: what learns output lengths while it runs.
        every_steps: steps after which it looks at the progress again.
        start: starts the engine.
    """

    rows: Work
    digest: str
    predicted: Mapping[str, Any]
    planned: pa.Table | None
    limits: EngineLimits | None
    live_policy: LivePolicyOf
    reviser: ReviserOf
    every_steps: int
    start: Callable[[Launch], Engine | AskingEngine]


def job_of_plan(plan: Plan, kind: EngineKind) -> Job:
    """A plan of one replica as a job for an engine."""

    def reviser(
        limits: EngineLimits, left: NDArray[np.int64], ended: NDArray[np.int32]
    ) -> Reviser | None:
        return reviser_of(plan, limits, left, ended)

    sharing = plan.metadata["prefix_sharing"]["planned"]
    return Job(
        rows=work_of(plan),
        digest=str(plan.metadata.get("columns_sha256") or column_digest(plan.table)),
        predicted={**plan.metadata["predicted"], "prefix_sharing": sharing},
        planned=plan.table.select(["start_s", "finish_s", "output_tokens_mean"]),
        limits=plan.limits,
        live_policy=lambda limits, left: plan.live_policy(limits, left=left),
        reviser=reviser,
        every_steps=every_steps(plan),
        start=partial(kind.start, plan),
    )


def job_of_requests(requests: Requests, kind: EngineKind) -> Job:
    """Requests as a job in depth-first order, within whatever limits the engine has.

    For an engine that needs no plan to start, see `EngineKind.needs_plan`.
    """
    sequences = sequences_of(requests)
    order = sequences.of(build_tree(requests).order)
    request, prompts = sequences.request, sequences.spread(requests.prompt_tokens)

    def live_policy(limits: EngineLimits, left: NDArray[np.int64]) -> LivePolicy:
        place = np.full(len(sequences), -1, dtype=np.int64)
        place[left] = np.arange(len(left))
        rows = place[order]
        one_side = np.zeros(len(left), dtype=np.int8)
        policy = queue_policy("dfs", rows[rows >= 0], limits, one_side, {})
        policy = keep_together(policy, None if request is None else request[left])
        return LivePolicy(policy, prompts, np.zeros_like(prompts), limits, left)

    digest = sha256(requests.token_ids.tobytes() + requests.source_row.tobytes())
    return Job(
        rows=work_of_requests(requests),
        digest=digest.hexdigest(),
        predicted={},
        planned=None,
        limits=None,
        live_policy=live_policy,
        reviser=lambda limits, left, ended: None,
        every_steps=1,
        start=partial(kind.start, None),
    )
