"""Requests with several answers on an engine: sent once, followed sequence by sequence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from blendplan.engines.protocol import EngineRequest, Session
from blendplan.engines.simulated_kind import simulated_engine
from blendplan.lengths.predict import predict_lengths
from blendplan.planfile.plan import Plan
from blendplan.planfile.rows import work_of
from blendplan.policy.registry import POLICIES
from blendplan.replaying.asked import asked
from blendplan.replaying.run import replay
from blendplan.requests.read import read_requests
from blendplan.tree.build import build_tree
from tests.replaying.replay_faults import FaultyEngine, raise_death
from tests.replaying.replay_jobs import assert_each_once, lines_of, small_plan, write_requests_file
from tests.replaying.test_failures import START


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_requests_file(tmp_path / "requests.jsonl", 40, answers=4)


def assert_all_answers(job: Path, output: Path) -> None:
    """Every request has one line, with as many choices and tokens as it asked for."""
    asked_for = {}
    for line in map(json.loads, job.read_text().splitlines()):
        body = line.get("body", line)
        asked_for[line.get("custom_id") or line["id"]] = body
    for line in lines_of(output):
        body, answer = asked_for[line["custom_id"]], line["response"]["body"]
        assert [choice["index"] for choice in answer["choices"]] == list(range(body["n"]))
        usage = answer["usage"]
        assert usage["completion_tokens"] == body["n"] * body["output_tokens"]
        prompt = body.get("prompt") or body.get("prompt_token_ids")
        assert usage["prompt_tokens"] == len(prompt)
        assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < len(prompt)


@pytest.mark.parametrize("policy", POLICIES.names())
def test_one_line_for_each_request(job: Path, tmp_path: Path, policy: str) -> None:
    made = small_plan(job, policy=policy)
    output = tmp_path / "results.jsonl"
    replayed = replay(made, output=output)
    assert_each_once(made, output)
    assert_all_answers(job, output)
    run = replayed.as_dict()
    assert (run["requests"], run["finished"], run["failed"]) == (40, 40, 0)
    assert run["prompt_tokens"] == made.metadata["predicted"]["prompt_tokens"]
    assert run["output_tokens"] == made.metadata["predicted"]["output_tokens"]
    assert run["makespan_s"] == made.metadata["predicted"]["makespan_s"]


class Recording(FaultyEngine):
    """An engine that notes what it is sent."""

    def __init__(self, *args: Any, seen: list[EngineRequest], **options: Any) -> None:
        super().__init__(*args, **options)
        self._seen = seen

    def serve(self, requests: Any) -> Any:
        self._seen.extend(requests)
        return super().serve(requests)


def started(seen: list[EngineRequest], **fault: Any) -> Callable[..., Recording]:
    def start(plan: Plan, session: Session, **_: Any) -> Recording:
        return Recording(simulated_engine(plan, session), seen=seen, end=raise_death, **fault)

    return start


@pytest.mark.parametrize("policy", POLICIES.names())
def test_an_engine_is_sent_each_request_once(
    job: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_plan(job, policy=policy)
    seen: list[EngineRequest] = []
    output = tmp_path / "results.jsonl"
    monkeypatch.setattr(START, started(seen))
    tally = replay(made, output=output).tally
    assert_each_once(made, output)
    assert_all_answers(job, output)
    firsts = np.flatnonzero(made.column("answer") == 0)
    assert sorted(request.row for request in seen) == firsts.tolist()
    assert all(request.answers == json.loads(request.body)["n"] for request in seen)
    assert tally.finished == 40


def test_deaths_and_refusals_count_requests(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_plan(job, policy="blend")
    answer, first = made.column("answer"), np.flatnonzero(made.column("answer") == 0)
    several = [int(row) for row in first if row + 1 < len(answer) and answer[row + 1] == 1]
    seen: list[EngineRequest] = []
    output = tmp_path / "results.jsonl"
    refusals = {several[-1]: 1, several[-2]: 9}
    monkeypatch.setattr(START, started(seen, poison=frozenset(several[:1]), refusals=refusals))
    replayed = replay(made, output=output, retries=2)
    assert_each_once(made, output)
    assert (replayed.tally.finished, replayed.tally.failed) == (38, 2)
    failed = {line["custom_id"] for line in lines_of(output) if line["error"]}
    ids = made.table.column("request_id")
    assert failed == {ids[several[0]].as_py(), ids[several[-2]].as_py()}


def test_an_interrupted_run_goes_on_with_whole_requests(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_plan(job, policy="blend")
    output = tmp_path / "results.jsonl"

    def interrupt(tally: Any) -> None:
        if tally.finished >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(made, output=output, progress=interrupt)
    told: list[str] = []
    replayed = replay(made, output=output, resume=True, remark=told.append)
    done = replayed.tally.already_done
    assert 10 <= done < 40
    assert told[0] == f"resuming: {done} of 40 requests are done"
    assert replayed.tally.finished == 40 - done
    assert_each_once(made, output)
    assert_all_answers(job, output)


def test_answers_are_taken_over(job: Path, tmp_path: Path) -> None:
    made = small_plan(job, policy="dfs")
    replay(made, output=tmp_path / "first.jsonl")
    some = tmp_path / "some.jsonl"
    some.write_text("".join((tmp_path / "first.jsonl").read_text().splitlines(True)[5:15]))
    replayed = replay(made, output=tmp_path / "second.jsonl", already=some)
    assert (replayed.tally.already_done, replayed.tally.finished) == (10, 30)
    assert_each_once(made, tmp_path / "second.jsonl")


def test_results_teach_the_length_of_one_answer(job: Path, tmp_path: Path) -> None:
    made = small_plan(job, policy="fcfs")
    replay(made, output=tmp_path / "results.jsonl")
    requests = read_requests(job)
    stated = requests.output_tokens.copy()
    requests.output_tokens[:] = -1
    learned = predict_lengths(requests, build_tree(requests), f"sample:{tmp_path}/results.jsonl")
    assert learned.mean.tolist() == stated.tolist()


def test_a_request_whose_answers_never_fit_is_one_error(tmp_path: Path) -> None:
    job = tmp_path / "requests.jsonl"
    lines = [
        {"id": "a", "prompt_token_ids": [1, 2, 3], "output_tokens": 4, "n": 3},
        {"id": "b", "prompt_token_ids": [4, 5, 6], "output_tokens": 4, "n": 3},
    ]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = small_plan(job, policy="fcfs")
    table = made.table
    for name in ("body", "output_tokens_known"):
        place, values = table.column_names.index(name), table.column(name).to_pylist()
        if name == "body":
            values[0] = values[0].replace(b'"output_tokens": 4', b'"output_tokens": 9999')
        else:
            values[:3] = [9999] * 3
        kind = table.schema.field(name).type
        table = table.set_column(place, table.schema.field(name), pa.array(values, kind))
    made = Plan(table, made.metadata)
    replayed = replay(made, output=tmp_path / "results.jsonl")
    assert (replayed.tally.finished, replayed.tally.failed) == (1, 1)
    found = {line["custom_id"]: line["error"] for line in lines_of(tmp_path / "results.jsonl")}
    assert "longer than the KV cache" in found["a"]["error"]["message"]
    assert found["b"] is None


@pytest.mark.parametrize(
    ("line", "url", "sent"),
    [
        ({"prompt": "a", "id": "x"}, "/v1/completions", {"prompt": "a"}),
        ({"prompt_token_ids": [1, 2], "n": 3}, "/v1/completions", {"n": 3, "prompt": [1, 2]}),
        (
            {"prompt": "a", "output_tokens": 7, "max_tokens": 9, "odd": [1]},
            "/v1/completions",
            {"ignore_eos": True, "prompt": "a", "max_tokens": 7, "odd": [1]},
        ),
        (
            {"prompt": "a", "output_tokens": "7"},  # as planning reads it
            "/v1/completions",
            {"ignore_eos": True, "prompt": "a", "max_tokens": 7},
        ),
        (
            {"prompt": "a", "output_tokens": 7, "ignore_eos": False},
            "/v1/completions",
            {"ignore_eos": False, "prompt": "a", "max_tokens": 7},
        ),
        (
            {
                "custom_id": "x",
                "url": "https://somewhere/openai/deployments/d/chat/completions?api-version=1",
                "body": {"messages": [{"role": "user", "content": "é"}], "label": 1, "seed": None},
            },
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "é"}], "label": 1, "seed": None},
        ),
    ],
)
def test_what_an_engine_is_asked(
    tmp_path: Path, line: dict[str, Any], url: str, sent: dict[str, Any]
) -> None:
    job = tmp_path / "requests.jsonl"
    job.write_text(json.dumps(line) + "\n")
    request = asked(work_of(small_plan(job, policy="fcfs")), 0)
    assert request.url == url
    assert json.loads(request.body) == sent
    assert request.answers == line.get("n", 1)
    is_open = "body" not in line and not {"max_tokens", "output_tokens"} & line.keys()
    assert (request.open_prompt_tokens >= 0) == is_open


def test_a_simulated_answer_says_whether_it_was_cut_off(tmp_path: Path) -> None:
    lines = [
        {"id": f"free-{row}", "prompt_token_ids": [row] * 20, "max_tokens": 150, "n": 2}
        for row in range(30)
    ]
    lines += [
        {"id": f"stated-{row}", "prompt_token_ids": [row] * 20, "output_tokens": 30}
        for row in range(5)
    ]
    job = tmp_path / "requests.jsonl"
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay(small_plan(job), output=tmp_path / "results.jsonl")
    seen = set()
    for line in lines_of(tmp_path / "results.jsonl"):
        body = line["response"]["body"]
        reasons = [choice["finish_reason"] for choice in body["choices"]]
        if line["custom_id"].startswith("stated"):
            assert reasons == ["length"]
        else:
            cut = body["usage"]["completion_tokens"] == 2 * 150
            assert (reasons == ["length", "length"]) is cut
            seen.update(reasons)
    assert seen == {"stop", "length"}
