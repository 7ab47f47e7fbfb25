"""`assemble_plan`: the columns of a plan, put together in admission order."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.lengths.predicted import OUTCOMES, Lengths, is_unsure
from blendplan.offsets import offsets_of
from blendplan.planfile.columns import ROWS_PER_BATCH, SCHEMA
from blendplan.planfile.plan import Plan
from blendplan.policy.known import PolicyInput
from blendplan.policy.state_machine import SIDES
from blendplan.requests.columns import Requests
from blendplan.requests.gather import gather
from blendplan.requests.sequences import Sequences
from blendplan.simulator.simulate import SimulatedRun


def assemble_plan(
    requests: Requests,
    sequences: Sequences,
    run: SimulatedRun,
    *,
    lengths: Lengths,
    expected: PolicyInput,
    limits: EngineLimits,
    metadata: dict[str, Any],
    replica: int = 0,
) -> Plan:
    """Put the columns of a plan together, in admission order.

    Args:
        requests: what was planned.
        sequences: what of it an engine runs; all that follows is of these.
        run: the simulated run of the chosen policy.
        lengths: predicted output lengths.
        expected: what the policy knew.
        limits: limits of the engine.
        metadata: everything else that the plan says of itself.
        replica: number of the engine that it is for.
    """
    order = run.admission
    orders = {"depth_first": expected.depth_first, "by_density": expected.by_density}
    ranks = {name: rank_in(places) for name, places in orders.items()}
    request, answer = sequences.request, sequences.answer
    batches = [
        _record_batch(
            requests,
            request,
            answer,
            run,
            lengths,
            expected,
            ranks,
            replica,
            start,
            order[start : start + ROWS_PER_BATCH],
        )
        for start in range(0, len(order), ROWS_PER_BATCH)
    ]
    return Plan(pa.Table.from_batches(batches, schema=SCHEMA), metadata)


def _record_batch(
    requests: Requests,
    request: NDArray[np.int64] | None,
    answer: NDArray[np.int32],
    run: SimulatedRun,
    lengths: Lengths,
    expected: PolicyInput,
    ranks: Mapping[str, NDArray[np.int64]],
    replica: int,
    start: int,
    rows: NDArray[np.int64],
) -> pa.RecordBatch:
    n = len(rows)
    share = run.share_tokens[rows]
    asking = rows if request is None else request[rows]
    # The prompt and the body stand in the first row of a request only.
    texts = pa.array(asking, mask=answer[rows] > 0)
    columns = {
        "position": np.arange(start, start + n),
        "request_id": requests.ids.take(pa.array(asking)).cast(pa.string()),
        "source_row": requests.source_row[asking],
        "answer": answer[rows],
        "replica": np.full(n, replica, dtype=np.int32),
        "batch": run.admission_step[rows],
        "side": pa.DictionaryArray.from_arrays(run.side[rows], pa.array(SIDES)),
        "memory_left_tokens": share[:, 0].copy(),
        "memory_right_tokens": share[:, 1].copy(),
        "prefill_budget_tokens": run.prefill_budget[rows],
        "prompt_tokens": requests.prompt_tokens_of(asking),
        "cached_tokens": run.cached_tokens[rows],
        "output_tokens_mean": lengths.mean[rows],
        "output_tokens_p50": lengths.p50[rows],
        "output_tokens_p90": lengths.p90[rows],
        "output_tokens_outcomes": _outcomes(lengths.outcomes[rows]),
        "output_tokens_known": _stated(requests.output_tokens[asking]),
        "max_tokens": _stated(requests.max_tokens[asking]),
        "new_prompt_tokens": expected.new_prompt_tokens[rows],
        "density": expected.density[rows],
        "family": expected.family[rows],
        **{name: rank[rows] for name, rank in ranks.items()},
        "start_s": run.start_s[rows],
        "finish_s": run.finish_s[rows],
        "prompt_token_ids": prompt_lists(requests, texts),
        "body": bodies_of(requests, texts),
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], type=field.type) for field in SCHEMA], schema=SCHEMA
    )


def rank_in(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each request in an order of all; int64 [n]."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


def prompt_lists(requests: Requests, wanted: pa.Array) -> pa.Array:
    """Token ids of some prompts, list<int32> [m]; null where they are estimates.

    Args:
        requests: all requests.
        wanted: which of them, null for a null; int64 [m].
    """
    if requests.estimated_tokens:
        return pa.nulls(len(wanted), pa.list_(pa.int32()))
    rows = wanted.drop_null().to_numpy()
    lengths = np.zeros(len(wanted), dtype=np.int64)
    stated = wanted.is_valid()
    lengths[stated.to_numpy(zero_copy_only=False)] = np.diff(requests.offsets)[rows]
    offsets = offsets_of(lengths)
    values = gather(requests.token_ids, requests.offsets, rows, int(offsets[-1]))
    mask = None if not wanted.null_count else wanted.is_null()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), mask=mask)


def _outcomes(outcomes: NDArray[np.float32]) -> pa.Array:
    """Equally likely lengths, list<float32> [m]; null where all are equal."""
    unsure = is_unsure(outcomes)
    offsets = pa.array(offsets_of(OUTCOMES * unsure), pa.int32())
    values = pa.array(outcomes[unsure].ravel())
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(~unsure))


def _stated(tokens: NDArray[np.int32]) -> pa.Array:
    """Numbers of tokens that the requests state, null where they do not."""
    return pa.array(tokens, mask=tokens < 0)


def bodies_of(requests: Requests, wanted: pa.Array) -> pa.Array:
    """The JSON of some requests, binary [m]; null where they have none. Args: as above."""
    if requests.bodies is None:
        return pa.nulls(len(wanted), pa.binary())
    return requests.bodies.take(wanted).cast(pa.binary())
