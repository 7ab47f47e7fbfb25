"""The plan of several replicas, as each of them has it."""

from pathlib import Path

import numpy as np
import pytest

from blendplan.planfile.plan import Plan
from blendplan.planfile.shared import shared_plans, with_prompts_of
from tests.replaying.replay_jobs import small_plan, write_requests_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    job = write_requests_file(tmp_path_factory.mktemp("job") / "requests.jsonl", 90, answers=2)
    return small_plan(job, policy="blend", replicas=3, effort=0)


def test_rows_are_the_plans_and_policies_those_of_the_parts(made: Plan) -> None:
    plans = shared_plans(made)
    assert len(plans) == 3
    for replica, shared in enumerate(plans):
        part = made.part(replica)
        mine = made.column("replica") == replica
        assert shared.table.column("request_id") == made.table.column("request_id")
        assert shared.metadata["policy_parameters"] == part.metadata["policy_parameters"]
        # Within a part everything is in the same order as before.
        for name in ("depth_first", "by_density", "family"):
            whole, alone = shared.column(name)[mine], part.column(name)
            order = np.argsort(alone, kind="stable")
            assert (np.diff(whole[order]) >= 0).all()
            assert (np.diff(whole[order]) > 0).tolist() == (np.diff(alone[order]) > 0).tolist()


def test_numbers_are_those_of_one_plan(made: Plan) -> None:
    shared = shared_plans(made)[0]
    for name in ("depth_first", "by_density"):
        assert sorted(shared.column(name).tolist()) == list(range(len(made)))
    part = made.column("replica")
    for family in np.unique(shared.column("family")):
        assert len(np.unique(part[shared.column("family") == family])) == 1


def test_the_answers_of_a_request_stay_together(made: Plan) -> None:
    request = np.cumsum(made.column("answer") == 0)
    for name in ("depth_first", "by_density"):
        in_order = request[np.argsort(shared_plans(made)[0].column(name))]
        assert np.count_nonzero(np.diff(in_order)) + 1 == request[-1]


def test_the_policy_of_a_part_is_the_same_over_all_rows(made: Plan) -> None:
    for replica, shared in enumerate(shared_plans(made)):
        part = made.part(replica)
        mine = np.flatnonzero(made.column("replica") == replica)
        there, here = shared.live_policy(left=mine), part.live_policy()
        chosen = there.admit(part.limits.kv_tokens) - mine[0]
        assert chosen.tolist() == here.admit(part.limits.kv_tokens).tolist()


def test_the_plan_of_one_replica_stays_as_it_is(tmp_path: Path) -> None:
    alone = small_plan(write_requests_file(tmp_path / "requests.jsonl", 20), effort=0)
    assert shared_plans(alone) == [alone]


def test_a_plan_without_the_prompts_of_others(made: Plan, tmp_path: Path) -> None:
    mine = np.flatnonzero(made.column("replica") == 1)
    with_prompts_of(shared_plans(made)[1], mine).write(tmp_path / "plan.arrow")
    written = Plan.read(tmp_path / "plan.arrow")
    for name in ("prompt_token_ids", "body"):
        before, after = (one.table.column(name).to_pylist() for one in (made, written))
        assert [after[row] for row in mine] == [before[row] for row in mine]
        assert sum(value is not None for value in after) <= len(mine)
    assert written.column("prompt_tokens").tolist() == made.column("prompt_tokens").tolist()
