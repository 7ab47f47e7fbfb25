"""The simulated engine for the requests of a plan."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from blendplan.checks.arguments import instance
from blendplan.cost.machine import Machine, machine
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_from_text, gpu_spec, model_spec
from blendplan.hardware.model import ModelSpec
from blendplan.hardware.model_json import model_from_json
from blendplan.lengths.features import request_features
from blendplan.lengths.plausible import numbers_of, plausible_outputs
from blendplan.lengths.predicted import Lengths
from blendplan.offsets import offsets_of
from blendplan.planfile.columns import outcomes_of
from blendplan.planfile.plan import Plan
from blendplan.planfile.revive import in_file_order, known_of, layout_of, plan_policy
from blendplan.planfile.rows import Work, work_of
from blendplan.policy.reviser import Earlier, Reviser, Unsure
from blendplan.requests.columns import Requests
from blendplan.requests.record import BadRecordError, parse_line, read_record, utf8
from blendplan.requests.sequences import Sequences
from blendplan.requests.tokens import estimate_tokens, render
from blendplan.simulator.simulate import SimulatedRun, simulate_run
from blendplan.simulator.workload import Workload
from blendplan.tree.blocks import block_chains
from blendplan.tree.build import build_tree
from blendplan.tree.repeated import repeat_requests


def simulate(plan: Plan) -> SimulatedRun:
    """Run a plan's policy on the simulated engine that the plan was made for.

    Args:
        plan: for one replica; see `Plan.part`.

    Returns:
        What happened, per row of the plan: exactly what the plan predicts.
    """
    instance("plan", plan, Plan, "give what plan() or Plan.read() returns")
    plan.refuse_parts()
    target = machine_of(plan)
    rows = in_file_order(plan.table)
    policy = plan_policy(plan.table, plan.metadata, target.limits, rows)
    run = simulate_run(
        workload_of(plan, rows),
        policy,
        target.limits,
        target.table,
        layout=target.layout,
        revise=reviser_of(plan, target.limits),
        revise_every=every_steps(plan),
    )
    return run.in_order(np.argsort(rows))


def every_steps(plan: Plan) -> int:
    """Steps after which a run of the plan looks at its progress again, where anything learns."""
    replan = plan.metadata["replan"]
    return 1 if replan is None else int(replan["every_steps"])


def reviser_of(
    plan: Plan,
    limits: EngineLimits,
    left: NDArray[np.int64] | None = None,
    generated: NDArray[np.int32] | None = None,
    *,
    shared: bool = False,
) -> Reviser | None:
    """What learns output lengths in a run of the plan, as at planning; None where nothing does.

    Args:
        plan: n requests.
        limits: of the engine.
        left: rows of the policy's requests; all without it; int64 [m].
        generated: output length of the rows that have ended already, 0 of the others; int32 [n].
        shared: whether other engines run the other rows, of which nothing is learned then.
    """
    if plan.metadata["replan"] is None:
        return None
    ended = np.zeros(len(plan), dtype=np.int32) if generated is None else generated
    job = np.union1d(left, np.flatnonzero(ended)) if shared and left is not None else None
    rows = in_file_order(plan.table, job)
    earlier = None
    mine = rows
    if left is not None:
        place = np.empty(len(plan), dtype=np.int64)
        place[rows] = np.arange(len(rows))
        mine = in_file_order(plan.table, left)
        earlier = Earlier(place[mine], ended[rows])
    known = known_of(plan.table, plan.metadata, mine)
    return Reviser(known, _unsure(Plan(plan.table.take(rows), plan.metadata)), limits, earlier)


def _unsure(plan: Plan) -> Unsure:
    """What can be learned from and of a plan's requests, which are in the order of their file."""
    outcomes = outcomes_of(plan.table).astype(np.float32)
    p50, p90 = plan.column("output_tokens_p50"), plan.column("output_tokens_p90")
    known = plan.table.column("output_tokens_known").is_valid().to_numpy()
    caps = plan.table.column("max_tokens").fill_null(-1).to_numpy()

    def features() -> NDArray[np.float32]:
        work = work_of(plan)
        requests, sequences = _requests(work)
        requests = replace(requests, max_tokens=caps[work.firsts])
        return sequences.spread(request_features(requests, build_tree(requests)))

    return Unsure(features, Lengths(outcomes, p50, p90, known), caps)


def gpu_of(metadata: Mapping[str, Any]) -> GpuSpec:
    """The GPU that a plan was made for, by its metadata."""
    name, profile = metadata["gpu"], metadata.get("gpu_profile")
    return gpu_from_text(profile, "the plan's GPU profile", name) if profile else gpu_spec(name)


def model_of(metadata: Mapping[str, Any]) -> ModelSpec:
    """The model that a plan was made for."""
    shape = metadata.get("model_shape")
    return (
        model_from_json(shape, "the plan's model_shape") if shape else model_spec(metadata["model"])
    )


def machine_of(plan: Plan) -> Machine:
    """The machine that a plan was made for."""
    return machine(
        gpu_of(plan.metadata),
        model_of(plan.metadata),
        tp=plan.metadata["tp"],
        overlap=float(plan.metadata["overlap"]),
        cost=plan.metadata["cost_model"]["name"],
        **plan.limits.as_metadata(),
        max_model_len=plan.max_model_len,
        kv_dtype=plan.metadata["engine"]["kv_dtype"],
        layout=layout_of(plan.metadata),
    )


def workload_of(plan: Plan, rows: NDArray[np.int64] | None = None) -> Workload:
    """The requests of a plan as the simulated engine sees them.

    Args:
        plan: n requests.
        rows: in which order; that of the plan without it; int64 [n].
    """
    if rows is not None:
        plan = Plan(plan.table.take(rows), plan.metadata)
    work = work_of(plan)
    requests, sequences = _requests(work)
    layout = layout_of(plan.metadata)
    hash_tokens = plan.limits.block_size if layout is None else layout.hash_tokens
    return Workload(
        work.prompt_tokens,
        plausible_outputs(
            outcomes_of(plan.table),
            numbers_of(work.source_row, work.answer),
            plan.metadata["seed"],
        ),
        block_chains(repeat_requests(build_tree(requests), sequences), requests, hash_tokens),
    )


def _requests(work: Work) -> tuple[Requests, Sequences]:
    """The prompts of a plan, as the request reader would give them, and the rows that have them."""
    rows = work.firsts
    unknown = np.full(len(rows), -1, dtype=np.int32)
    requests = Requests(
        ids=work.ids.take(pa.array(rows)).combine_chunks(),
        source_row=work.source_row[rows],
        token_ids=_token_ids(work),
        offsets=offsets_of(work.prompt_tokens[rows]),
        output_tokens=unknown,
        max_tokens=unknown,
        estimated_tokens=work.prompt_token_ids.null_count > len(work) - len(rows),
    )
    alone = len(rows) == len(work)
    return requests, Sequences(len(rows), None if alone else np.append(rows, len(work)))


def _token_ids(work: Work) -> NDArray[np.int32]:
    """Prompts of all requests, one after the other."""
    lists = work.prompt_token_ids
    if lists.null_count == len(work) - len(work.firsts):
        chunks = [chunk.flatten().to_numpy() for chunk in lists.chunks]
        return np.concatenate(chunks).astype(np.int32, copy=False)
    rows = [_estimated(work, row) for row in work.firsts.tolist()]
    return np.concatenate(rows)


def _estimated(work: Work, row: int) -> NDArray[np.int32]:
    """A prompt that a plan holds as text, in as many tokens as the plan says it has.

    The estimate of the plan gives them back, except where it had a tokenizer but no exact text.
    """
    given = work.prompt_token_ids[row]
    if given.is_valid:
        stated: NDArray[np.int32] = given.values.to_numpy()
        return stated
    try:
        record = read_record(parse_line(work.bodies[row].as_py() or b"{}"))
        text = b"" if record.token_ids is not None else utf8(render(record), "the prompt")
    except BadRecordError as error:
        raise BlendplanError(f"row {row} of the plan holds no request: {error}") from None
    if record.token_ids is not None:
        tokens = np.array(record.token_ids, dtype=np.int32)
    else:
        tokens, _ = estimate_tokens(pa.array([text], pa.large_binary()))
    wanted = int(work.prompt_tokens[row])
    if len(tokens) < wanted:
        # A token of its own: what is not known is not shared.
        filler = np.full(wanted - len(tokens), -1 - row, dtype=np.int32)
        tokens = np.concatenate([tokens, filler])
    return tokens[:wanted]
