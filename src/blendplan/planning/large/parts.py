"""Fourth pass: each part is planned as the requests of one engine are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.planfile.folder import PartFile, named_by_content
from blendplan.planning.bound import LeastWork, least_work
from blendplan.planning.large.dividing import Share
from blendplan.planning.large.job import Job
from blendplan.planning.large.spill import read_batches, requests_of
from blendplan.planning.outlook import Outlook
from blendplan.planning.planned import plan_prepared
from blendplan.planning.prepare import prepare
from blendplan.policy.state_machine import Parameters
from blendplan.requests.columns import select
from blendplan.requests.fingerprint import TokenizerFingerprint

# Points of the distribution of the times at which requests end.
_POINTS = 2001


@dataclass(frozen=True)
class Part:
    """One part to plan.

    Attributes:
        number: of its replica.
        shares: where its requests are, in the order of the ranges.
        rejected: what the plan leaves out; the first part has it all.
    """

    number: int
    shares: Sequence[Share]
    rejected: pa.Table


@dataclass(frozen=True)
class Made:
    """What all plans of the folder say alike.

    Attributes:
        estimated: whether prompts are estimates.
        sha256: of the request files.
        tokenizer: what made the token ids, None where none did.
        columns: of the tables that are carried, None for lines.
        parameters: of the policy; None for a part that chooses them, for all.
    """

    estimated: bool
    sha256: str
    tokenizer: TokenizerFingerprint | None
    columns: pa.Schema | None
    parameters: Parameters | None = None


@dataclass(frozen=True)
class PartPlanned:
    """What the plan of a part comes to.

    Attributes:
        file: its name and digest; it lies in the folder of the job.
        metadata: what it says of itself.
        work: what no schedule of its requests avoids, with its own preemptions.
        ends_s: times by which equal shares of its sequences have ended, rising; float64.
        sequences: how many there are.
        outlook: what its makespan may become.
    """

    file: PartFile
    metadata: dict[str, Any]
    work: LeastWork
    ends_s: NDArray[np.float64]
    sequences: int
    outlook: Outlook | None


def plan_part(job: Job, made: Made, part: Part) -> PartPlanned:
    """Plan one part, and write it into the folder of the job."""
    batches = [
        batch for share in part.shares for batch in read_batches(share.path, share.start, share.end)
    ]
    requests = requests_of(batches, made.estimated)
    batches.clear()
    # As a file of these requests alone would have them.
    requests = select(requests, np.argsort(requests.source_row))
    requests = replace(requests, sha256=made.sha256, tokenizer=made.tokenizer)
    requests = replace(requests, columns=made.columns)
    prepared = prepare(
        requests,
        job.target,
        lengths=job.how.lengths,
        preserve_sharing=job.how.preserve_sharing,
        seed=job.how.seed,
    )
    plan, predicted = plan_prepared(
        prepared,
        job.target,
        job.policy,
        seed=job.how.seed,
        effort=job.how.effort,
        replan=job.how.replan,
        parameters=made.parameters,
        replica=part.number,
    )
    run = predicted.run
    plan = plan.rejecting(part.rejected)
    written = job.folder / f"part-{part.number:05d}.arrow"
    plan.write(written)
    workload = prepared.workload
    work = least_work(
        workload.prompt_tokens.astype(np.int64),
        workload.output_tokens.astype(np.int64),
        prepared.prefill,
        run.preemptions,
        reach=job.target.table.reach,
        holding=prepared.expected.holding,
    )
    return PartPlanned(
        file=named_by_content(written, part.number),
        metadata=plan.metadata,
        work=work,
        ends_s=np.quantile(run.finish_s, np.linspace(0.0, 1.0, _POINTS)),
        sequences=len(plan),
        outlook=predicted.outlook,
    )
