"""Plans of what fits a stretch of time: what is in them, and what is left for later."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.cli.answer import headline
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.filling import (
    Trial,
    fill,
    fill_in_parts,
    most_that_fits,
    that_fit_alone,
)
from blendplan.planning.planner import plan
from blendplan.planning.window import priorities
from blendplan.report.summary import headline_rows
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.tree.build import build_tree
from blendplan.tree.families import sharing_families
from tests.cli.cli_runs import answer, error_line, run, write_job

SMALL: dict[str, Any] = {"gpu": "l4", "kv_tokens": 4_000, "max_num_seqs": 16, "policy": "dfs"}


def job(requests: int = 240, known: bool = True) -> Requests:
    rng = np.random.default_rng(5)
    prefixes = rng.integers(0, 1000, (12, 64)).tolist()
    prompts = [
        [*prefixes[k % 12], *rng.integers(0, 1000, 1 + k % 40).tolist()] for k in range(requests)
    ]
    outputs = [1 + (k * 37) % 29 + 20 * (k % 12) for k in range(requests)]
    return requests_from_lists(
        prompts, output_tokens=outputs if known else None, max_tokens=[400] * requests
    )


def makespan(made: Plan) -> float:
    return float(made.metadata["predicted"]["makespan_s"])


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("share", [0.2, 0.6, 1.01])
def test_complete_families_fill_the_window(replicas: int, share: float) -> None:
    requests = job()
    within_s = share * makespan(plan(requests, replicas=replicas, **SMALL))
    made = plan(requests, replicas=replicas, within_s=within_s, **SMALL)
    made.verify()
    assert 0.7 * within_s < makespan(made) <= within_s
    window = made.metadata["window"]
    assert window["postponed"] == 240 - made.requests
    assert (window["postponed"] == 0) is (share > 1)
    family = sharing_families(build_tree(requests))
    assert len(np.unique(family)) == 12
    planned = np.zeros(240, bool)
    planned[made.column("source_row")] = True
    for number in range(12):
        assert len(set(planned[family == number])) == 1


def test_what_comes_first_does_the_most_work_per_second() -> None:
    requests = job()
    made = plan(requests, within_s=0.4 * makespan(plan(requests, **SMALL)), **SMALL)
    rest = np.setdiff1d(np.arange(240), made.column("source_row"))

    def outputs_per_prompt(rows: np.ndarray[Any, Any]) -> float:
        return float(requests.output_tokens[rows].sum() / requests.prompt_tokens[rows].sum())

    # Prompts are read many at a time, outputs are written one by one.
    assert outputs_per_prompt(made.column("source_row")) < outputs_per_prompt(rest)


def test_of_a_family_that_is_too_long_a_part_is_planned() -> None:
    one_family = requests_from_lists([[*range(50), k] for k in range(80)], output_tokens=[40] * 80)
    whole = makespan(plan(one_family, **SMALL))
    made = plan(one_family, within_s=whole / 2, **SMALL)
    assert 10 < made.requests < 80
    assert makespan(made) <= whole / 2
    with pytest.raises(BlendplanError, match="not even one request fits"):
        plan(one_family, within_s=1e-4, **SMALL)


@pytest.mark.parametrize("order", [1, -1])
def test_requests_that_are_too_long_by_themselves_leave_the_window_to_others(order: int) -> None:
    outputs = [*[900] * 6, *[10 + 2 * k for k in range(60)]][::order]
    one_family = requests_from_lists([[*range(50), k] for k in range(66)], output_tokens=outputs)
    alone = requests_from_lists([list(range(51))], output_tokens=[400])
    within_s = makespan(plan(alone, **SMALL))
    made = plan(one_family, within_s=within_s, **SMALL)
    made.verify()
    assert made.metadata["window"]["too_long"] == 6
    assert "6 of them too long by themselves" in headline_rows(headline(made.metadata))["within"]
    taken = one_family.output_tokens[made.column("source_row")]
    assert len(taken) > 30
    assert taken.max() < 900
    # Of the family that is too long as a whole, short ones come first.
    assert sorted(taken) == sorted(outputs)[: len(taken)]
    with pytest.raises(BlendplanError, match=r'the shortest, "[0-9]+", takes 0\.[0-9]+ seconds'):
        plan(one_family, within_s=1e-3, **SMALL)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 60))
def test_what_fits_alone(costs: list[int], within_s: int) -> None:
    def trial(chosen: Sequence[NDArray[np.int64]]) -> Trial:
        (request,) = chosen
        return Trial(Plan(None, {}), costs[int(request[0])])

    found = that_fit_alone(trial, np.array(costs, np.float64), within_s)
    assert found.tolist() == [row for row, cost in enumerate(costs) if cost <= within_s]


def test_unsure_lengths_must_fit_with_the_probability_asked_for() -> None:
    requests = job(known=False)
    whole = plan(requests, **SMALL)
    within_s = 0.6 * makespan(whole)
    sure, bold = (
        plan(requests, within_s=within_s, chance=chance, **SMALL) for chance in (0.9, 0.5)
    )
    assert sure.metadata["predicted"]["makespan_quantiles_s"]["p90"] <= within_s
    assert bold.metadata["predicted"]["makespan_quantiles_s"]["p50"] <= within_s
    assert sure.requests < bold.requests


@given(
    st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60),
    st.floats(0.01, 700.0),
    st.floats(0.3, 3.0),
)
def test_the_most_that_fits_of_a_known_cost(
    costs: list[float], within_s: float, longer: float
) -> None:
    ends = np.cumsum(costs)
    made = Plan(None, {})

    def trial(count: int) -> Trial:
        return Trial(made, longer * float(ends[count - 1]))

    found, count = most_that_fits(trial, ends, within_s)
    fitting = longer * ends[longer * ends <= within_s]
    if found is None:
        assert not len(fitting)
        assert count == 0
    else:
        assert found.end_s == longer * ends[count - 1] <= within_s
        assert found.end_s == fitting[-1] or found.end_s >= 0.97 * within_s


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 200))
def test_groups_that_are_too_long_are_passed_over(costs: list[int], within_s: int) -> None:
    groups = [np.full(cost, place) for place, cost in enumerate(costs)]

    def trial(chosen: Sequence[NDArray[np.int64]]) -> Trial:
        return Trial(Plan(None, {"chosen": [int(one[0]) for one in chosen]}), sum(map(len, chosen)))

    guess = np.array(costs, dtype=np.float64)
    strict, loose = (fill(trial, groups, guess, within_s, skips) for skips in (0, 4))
    if costs[0] > within_s:
        assert strict is None
        assert loose is None
        return
    assert strict is not None
    assert loose is not None
    assert strict.end_s <= loose.end_s <= within_s
    ends = np.cumsum(costs)
    taken = len(strict.plan.metadata["chosen"])
    assert ends[taken - 1] >= 0.97 * within_s or taken == np.count_nonzero(ends <= within_s)
    left = [cost for place, cost in enumerate(costs) if place not in loose.plan.metadata["chosen"]]
    passed = len(left)
    if passed <= 4 and loose.end_s < 0.97 * within_s:
        assert all(loose.end_s + cost > within_s for cost in left)


@given(
    st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_a_window_is_filled_whatever_the_guess(costs: list[list[int]], seed: int) -> None:
    cost = np.array([one for group in costs for one in group], np.float64)
    groups = np.split(np.arange(len(cost)), np.cumsum([len(group) for group in costs])[:-1])
    within_s = float(cost.min())

    def trial(chosen: Sequence[NDArray[np.int64]]) -> Trial:
        rows = np.concatenate(chosen)
        return Trial(Plan(None, {"rows": rows}), float(cost[rows].sum()))

    guess = cost * np.random.default_rng(seed).uniform(0.5, 2.0, len(cost))
    sums = np.array([guess[group].sum() for group in groups])
    found = fill_in_parts(trial, groups, sums, guess, within_s, 4)
    assert found.end_s == within_s
    (row,) = found.plan.metadata["rows"]
    assert cost[row] == within_s


def priority_job(path: Path) -> Path:
    lines = []
    for k in range(90):
        body = {"model": "m", "prompt": f"{k} " * (20 + k % 7), "max_tokens": 60}
        if k % 3:
            body["priority"] = k % 3 - 3  # -2 or -1, else none, which is 0
        lines.append(
            {"custom_id": f"r{k}", "method": "POST", "url": "/v1/completions", "body": body}
        )
    path.write_text("".join(json.dumps(line | {"output_tokens": 30}) + "\n" for line in lines))
    return path


def test_the_lowest_priority_number_comes_first(tmp_path: Path) -> None:
    requests = read_requests(priority_job(tmp_path / "requests.jsonl"))
    urgency = priorities(requests)
    assert urgency.tolist() == [0 if k % 3 == 0 else k % 3 - 3 for k in range(90)]
    within_s = 0.5 * makespan(plan(requests, **SMALL))
    made = plan(requests, within_s=within_s, first="priority", **SMALL)
    rows = made.column("source_row")
    rest = np.setdiff1d(np.arange(90), rows)
    assert 30 < len(rows) < 60
    assert urgency[rows].max() <= urgency[rest].min()


def write_results(path: Path, ids: list[str], lost: tuple[str, ...] = ()) -> Path:
    answered = {"response": {"status_code": 200, "body": {"usage": {"completion_tokens": 3}}}}
    failed = {"response": None, "error": {"message": "lost"}}
    lines = [{"custom_id": name} | (failed if name in lost else answered) for name in ids]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_windows_one_after_the_other_plan_every_request_once(tmp_path: Path) -> None:
    requests = write_job(tmp_path / "requests.jsonl", 90)
    with requests.open("a") as file:
        file.write("no request\n")
    words = ("plan", requests, "--gpu", "l4", "--kv-tokens", "4000", "--policy", "dfs")
    skip = ("--on-error", "skip")
    whole = answer(*words, *skip, "-o", tmp_path / "whole.arrow")
    assert "coverage" not in whole
    within = f"{whole['predicted']['makespan_s'] / 2.5:.3f}s"
    first = tmp_path / "first.arrow"
    made = [answer(*words, *skip, "--within", within, "-o", first)]
    ids = Plan.read(first).table.column("request_id").to_pylist()
    # Of the first window one request failed: it is planned again.
    results = write_results(tmp_path / "results.jsonl", ids, lost=(ids[0],))
    second = tmp_path / "second.arrow"
    made.append(answer(*words, *skip, "--within", within, "--already", results, "-o", second))
    third = tmp_path / "third.arrow"
    earlier = ("--already", results, "--already", second)
    made.append(answer(*words, *skip, *earlier, "-o", third))
    planned = []
    for one, path in zip(made, (first, second, third), strict=True):
        of = one["coverage"]
        assert of["file"] == 91
        assert of["file"] == sum(of.values()) - of["file"]
        assert of["planned"] == one["requests"]
        assert of["rejected"] == 1
        assert answer("inspect", path)["coverage"] == of
        assert answer("verify", path)["verified"]
        planned += Plan.read(path).table.column("request_id").to_pylist()
    assert made[0]["coverage"]["postponed"] > 0
    assert made[1]["coverage"]["already"] == made[0]["requests"] - 1
    assert made[2]["coverage"]["postponed"] == 0
    assert sorted(planned) == sorted(
        [*Plan.read(tmp_path / "whole.arrow").table.column("request_id").to_pylist(), ids[0]]
    )
    shown = run("inspect", first).stdout
    assert f"{made[0]['coverage']['postponed']} for later" in shown


def test_a_folder_of_parts_counts_as_planned(tmp_path: Path) -> None:
    requests = write_job(tmp_path / "requests.jsonl", 30)
    half = tmp_path / "half.jsonl"
    half.write_text("".join(requests.read_text().splitlines(keepends=True)[:12]))
    words = ("--gpu", "l4", "--policy", "dfs")
    folder = f"{tmp_path}/half/"
    answer("plan", half, *words, "--replicas", "2", "--processes", "1", "-o", folder)
    rest = answer("plan", requests, *words, "--already", folder, "-o", tmp_path / "rest.arrow")
    assert rest["coverage"] == {
        "file": 30,
        "planned": 18,
        "postponed": 0,
        "already": 12,
        "repeated": 0,
        "rejected": 0,
    }


def test_repeats_count_with_the_request_that_answers_them(tmp_path: Path) -> None:
    body = {"model": "m", "temperature": 0, "max_tokens": 8}
    lines = [
        {"custom_id": f"r{k}", "method": "POST", "url": "/v1/completions"}
        | {"body": body | {"prompt": f"{k % 4} and so on" * 20}}
        for k in range(10)
    ]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("plan", requests, "--gpu", "l4", "--policy", "dfs", "--dedupe", "-o", tmp_path / "p")
    of = answer(*words, "--within", "6h")["coverage"]
    assert (of["file"], of["planned"], of["repeated"]) == (10, 4, 6)
    shown = " ".join(run("inspect", tmp_path / "p").stdout.split())
    assert "6 answered with identical ones" in shown
    assert answer("verify", tmp_path / "p")["verified"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--within", "0s"), "no time at all"),
        (("--within", "-6h"), "in the past"),
        (("--within", "1s", "--chance", "2"), "2"),
        (("--within", "1s", "--first", "priorty"), "did you mean 'priority'"),
        (("--within", "1s", "--first", "priority"), "states a priority"),
        (("--within", "0.000001s"), "not even one request fits"),
        (("--already", "none.arrow"), "none.arrow"),
        (("--already", "other.jsonl"), "plans or answers is among these requests"),
        (("--already", "all.jsonl"), "all 9 requests are planned or answered already"),
        (("--already", "requests.jsonl"), "requests.jsonl plans or answers"),
    ],
)
def test_bad_input_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    requests = write_job(tmp_path / "requests.jsonl", 9)
    write_results(tmp_path / "other.jsonl", ["stranger"])
    write_results(tmp_path / "all.jsonl", read_requests(requests).ids.to_pylist())
    result = run("plan", "requests.jsonl", "--gpu", "l4", "-o", "plan.arrow", *words)
    assert said in error_line(result)
    assert not (tmp_path / "plan.arrow").exists()


def test_a_window_is_planned_into_a_file(tmp_path: Path) -> None:
    requests = write_job(tmp_path / "requests.jsonl", 9)
    for words in (("-o", f"{tmp_path}/plan/"), ("--sample-out", tmp_path / "sample.jsonl")):
        result = run("plan", requests, "--gpu", "l4", "--within", "6h", *words)
        assert result.exit_code == 2
        assert "--within and --already plan into a file" in error_line(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"within_s": 0}, "within_s is 0"),
        ({"within_s": "6h"}, "within_s is"),
        ({"within_s": 1.0, "chance": 0.0}, "chance is 0"),
        ({"within_s": 1.0, "first": "families"}, "unknown first 'families'"),
    ],
)
def test_bad_arguments_of_plan(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BlendplanError) as caught:
        plan(job(10), gpu="l4", **options)
    assert said in str(caught.value)
