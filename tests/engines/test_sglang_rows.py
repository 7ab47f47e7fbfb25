"""What can be said of SGLang's scheduler without SGLang: rows, options, versions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blendplan.engines.planned import PlannedAdmission
from blendplan.engines.sglang import options
from blendplan.engines.sglang.plugin import follow_the_plan
from blendplan.engines.sglang.rows import Rows
from blendplan.engines.sglang.versions import check_scheduler
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from tests.replaying.replay_jobs import small_plan

PROMPTS = {"a": [5, 6, 7], "b": [8, 9], "c": [5, 6, 7]}


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    """Three requests, the second with two answers."""
    bodies: list[dict[str, Any]] = [
        {"id": name, "prompt_token_ids": tokens, "max_tokens": 4, "output_tokens": 4}
        for name, tokens in PROMPTS.items()
    ]
    bodies[1] |= {"n": 2, "temperature": 1}
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return small_plan(job, policy="fcfs")


def req(key: str | None, rid: str = "x", tokens: list[int] | None = None, most: int = 4) -> Any:
    """A request as SGLang's scheduler has it."""
    return SimpleNamespace(
        routing_key=key,
        rid=rid,
        origin_input_ids=tokens or [1],
        sampling_params=SimpleNamespace(max_new_tokens=most),
    )


def test_a_replay_names_its_requests(made: Plan) -> None:
    rows = Rows(PlannedAdmission(made, made.limits), replayed=True)
    assert rows.arrived(req("blendplan-0")).row == 0
    # Embeddings are named by their request id.
    assert rows.arrived(req(None, "blendplan-3-5f2a")).row == 3
    strangers = [req(None), req("blendplan-77"), req("blendplan-0"), req("blendplan-3x")]
    assert [rows.arrived(one).row for one in strangers] == [4, 5, 6, 7]


def test_a_failed_attempt_frees_its_row(made: Plan) -> None:
    rows = Rows(PlannedAdmission(made, made.limits), replayed=True)
    first = rows.arrived(req("blendplan-0"))
    rows.left(first)
    assert rows.arrived(req("blendplan-0")).row == 0


def test_several_answers_come_after_their_warm_up(made: Plan) -> None:
    for replayed, name in ((True, "blendplan-1"), (False, None)):
        rows = Rows(PlannedAdmission(made, made.limits), replayed=replayed)
        for _ in range(2 if replayed else 1):  # an attempt that failed begins anew
            warm_up = rows.arrived(req(name, tokens=PROMPTS["b"], most=0))
            assert (warm_up.row, warm_up.warm_up) == (1, True)
            rows.left(warm_up)
            answers = [rows.arrived(req(name, tokens=PROMPTS["b"])) for _ in range(2)]
            assert [one.row for one in answers] == [1, 2]
            assert not any(one.warm_up for one in answers)
            for one in answers:
                rows.left(one)


def test_answers_that_generate_nothing_are_no_second_warm_up(made: Plan) -> None:
    rows = Rows(PlannedAdmission(made, made.limits), replayed=True)
    parts = [rows.arrived(req("blendplan-1", most=0)) for _ in range(3)]
    assert [(one.row, one.warm_up) for one in parts] == [(1, True), (1, False), (2, False)]


def test_requests_of_others_are_found_by_id_or_prompt(made: Plan) -> None:
    rows = Rows(PlannedAdmission(made, made.limits), replayed=False)
    assert rows.arrived(req("c", tokens=[4])).row == 3
    assert rows.arrived(req(None, "a", tokens=[4])).row == 0
    assert rows.arrived(req("blendplan-0", tokens=[4])).row == 4  # no name that anybody gave
    rows = Rows(PlannedAdmission(made, made.limits), replayed=False)
    same = [rows.arrived(req(None, str(nth), tokens=PROMPTS["a"])).row for nth in range(3)]
    assert sorted(same[:2]) == [0, 3]
    assert same[2] == 4


def test_the_environment_names_the_plan() -> None:
    assert options.options({}) is None
    given = options.options({options.PLAN: "plan.arrow", options.REPLICA: "2", options.WAIT: "0.5"})
    assert given is not None
    assert (given.path, given.replica, given.wait_s) == (Path("plan.arrow"), 2, 0.5)
    for name, value in ((options.REPLICA, "-1"), (options.WAIT, "soon"), (options.WAIT, "-1")):
        with pytest.raises(BlendplanError, match=f'{name} is "{value}"; give'):
            options.options({options.PLAN: "plan.arrow", name: value})


def test_another_scheduler_is_refused() -> None:
    class Scheduler:
        get_output_streamer_class = None
        get_next_batch_to_run = get_prefill_adder_class = process_batch_result = None
        _get_new_batch_prefill_raw = _add_request_to_queue = send_abort_output = None

    check_scheduler("0.5.99", Scheduler)
    with pytest.raises(BlendplanError, match=r"SGLang 9 has another .* \(no _get_new_batch"):
        check_scheduler("9", type("Scheduler", (), {}))


def test_the_plug_in_does_nothing_without_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(options.PLAN, raising=False)
    follow_the_plan()
    for value, name in (("nowhere.arrow", options.PLAN), ("-1", options.WAIT)):
        monkeypatch.setenv(options.PLAN, "nowhere.arrow")
        monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit, match=f"blendplan: {name} "):
            follow_the_plan()
