"""`Job`: what is run on an engine, from a plan or from requests that nobody has planned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.cost.reach import ALL_TOKENS, Reach
from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import Engine, Launch, Session
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.planfile.check import column_digest
from blendplan.planfile.plan import Plan
from blendplan.planfile.revive import reach_of
from blendplan.planfile.rows import Work, work_of, work_of_requests
from blendplan.planfile.shared import shared_plans
from blendplan.replaying.shares import Parts, parts_of
from blendplan.requests.columns import Requests
from blendplan.requests.rejects import NO_REJECTS
from blendplan.requests.sequences import sequences_of
from blendplan.requests.source_columns import schema_of_text
from blendplan.tree.build import build_tree


@dataclass(frozen=True)
class Job:
    """n sequences that go to an engine.

    Attributes:
        rows: the sequences, by requests.
        digest: what tells this job from others, for its journal.
        predicted: totals that are predicted, by the names of a plan's metadata; empty for none.
        planned: ``start_s``, ``finish_s`` and ``output_tokens_mean`` of each row, for the request
            log; None where nothing was planned.
        rejected: requests that planning left out, rows of `REJECTED`.
        limits: those that were planned for; None where the engine's own are taken.
        parts: makes what several replicas need to share the requests; None where nobody planned.
        order: rows in the order to send them, where no policy inside the engine says otherwise;
            int64 [n].
        start: starts the engine of a replica for what is left.
        reach: how far back the model's attention looks, by which a step log counts.
        columns: of the table that the requests came from, None where that is not known.
        repeats: how many requests get the answer of an identical one that runs.
        left_out: rows that are not to run, bool [n]; None where all are.
        stock: whether the engine's own scheduler decides, which gets them in this order.
    """

    rows: Work
    digest: str
    predicted: Mapping[str, Any]
    planned: pa.Table | None
    rejected: pa.Table
    limits: EngineLimits | None
    parts: Callable[[], Parts] | None
    order: NDArray[np.int64]
    start: Callable[[int, Launch, Session], Engine]
    reach: Reach = ALL_TOKENS
    columns: pa.Schema | None = None
    repeats: int = 0
    left_out: NDArray[np.bool_] | None = None
    stock: bool = False

    @property
    def requests(self) -> int:
        """How many requests are to run."""
        out = self.left_out
        return len(self.rows.firsts) - (0 if out is None else int(out[self.rows.firsts].sum()))

    def first(self, count: int) -> "Job":
        """The first requests of the file that run, alone, as a trial."""
        by_row = self.rows.firsts[np.argsort(self.rows.source_row[self.rows.firsts])]
        left_out = np.isin(self.rows.first_rows, by_row[count:])
        return replace(self, predicted={}, rejected=NO_REJECTS, repeats=0, left_out=left_out)


def job_of_plan(plan: Plan, kind: EngineKind) -> Job:
    """A plan as a job for an engine, or for one engine of each replica."""
    plans = shared_plans(plan)
    sharing = plan.metadata["prefix_sharing"]["planned"]
    columns = plan.metadata.get("source_columns")
    return Job(
        rows=work_of(plan),
        digest=str(plan.metadata.get("columns_sha256") or column_digest(plan.table)),
        predicted={**plan.metadata["predicted"], "prefix_sharing": sharing},
        planned=plan.table.select(["start_s", "finish_s", "output_tokens_mean"]),
        rejected=plan.rejected,
        limits=plan.limits,
        parts=partial(parts_of, plans[0]),
        order=np.arange(len(plan)),
        start=lambda replica, launch, session: kind.start(
            plans[replica % len(plans)], launch, session
        ),
        reach=reach_of(plan.metadata),
        columns=None if columns is None else schema_of_text(columns),
        repeats=plan.metadata.get("repeats", {}).get("requests", 0),
    )


def job_of_requests(requests: Requests, kind: EngineKind) -> Job:
    """Requests as a job in depth-first order, within whatever limits the engine has.

    For an engine that needs no plan to start, see `EngineKind.needs_plan`.
    """
    digest = sha256(requests.token_ids.tobytes() + requests.source_row.tobytes())
    return Job(
        rows=work_of_requests(requests),
        digest=digest.hexdigest(),
        predicted={},
        planned=None,
        rejected=NO_REJECTS,
        limits=None,
        parts=None,
        order=sequences_of(requests).of(build_tree(requests).order),
        start=lambda replica, launch, session: kind.start(None, launch, session),
        columns=requests.columns,
    )
