"""`trial` on the simulated engine: figures that follow from the plans, resumed, taken over."""

import json
from pathlib import Path
from typing import Any

import pytest

import blendplan
from blendplan.engines.simulated import SimulatedEngine
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec
from blendplan.planfile.plan import Plan
from blendplan.proving.trial import trial
from blendplan.requests.columns import Requests
from tests.planfile.test_rerun import job
from tests.replaying.replay_jobs import ids_of, lines_of

MACHINE: dict[str, Any] = {
    "gpu": "l4",
    "kv_tokens": 2048,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 256,
    "effort": 0,
}
WAYS = ("input", "planned")


@pytest.fixture(scope="module")
def requests() -> Requests:
    return job(5, 300)


def tried(requests: Requests, folder: Path, **options: Any) -> dict[str, Any]:
    return trial(requests, "sim", folder, **{"most": 120, **MACHINE, **options})


@pytest.fixture(scope="module")
def found(requests: Requests, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a trial, and what it found."""
    folder = tmp_path_factory.mktemp("trial") / "deep" / "er"
    return folder, tried(requests, folder)


def test_a_simulated_engine_does_what_its_plans_say(found: tuple[Path, Any]) -> None:
    """So the gain is the predicted one, no price is off, and the fit finds them again."""
    folder, values = found
    gain, predicted = values["gain"], values["predicted"]
    for way in WAYS:
        plan = Plan.read(folder / f"{way}.plan.arrow")
        assert plan.metadata["policy"] == {"input": "fcfs", "planned": "blend"}[way]
        told = plan.metadata["predicted"]
        assert gain[way]["makespan_s"] == predicted[way]["makespan_s"] == told["makespan_s"]
        assert gain[way]["preemptions"] == told["preemptions"]
        assert values["makespan_error"][way] == 0
        assert abs(values["prices"]["given"][way]["total_error"]) < 0.01
        assert abs(values["prices"]["fitted"][way]["total_error"]) < 0.05
    ours, theirs = (gain[way]["makespan_s"] for way in reversed(WAYS))
    assert gain["throughput"] == pytest.approx(theirs / ours - 1)
    assert gain["throughput"] == pytest.approx(predicted["gain"])
    assert gain["same_output"]
    assert values["simulated"]


def test_both_plans_are_of_the_same_requests_within_the_same_limits(
    requests: Requests, found: tuple[Path, Any]
) -> None:
    folder, values = found
    plans = [Plan.read(folder / f"{way}.plan.arrow") for way in WAYS]
    assert set(ids_of(plans[0])) == set(ids_of(plans[1]))
    assert len(plans[0]) == values["excerpt"]["requests"]["excerpt"] == 120
    assert plans[0].limits == plans[1].limits
    rows = plans[0].column("source_row")
    assert rows.tolist() == sorted(rows.tolist()), "input order"
    known = plans[0].table.column("output_tokens_known").to_pylist()
    assert known == requests.output_tokens[rows].tolist()


def test_the_profile_plans_the_job(requests: Requests, found: tuple[Path, Any]) -> None:
    """As the trial has done itself."""
    folder, values = found
    assert gpu_spec(folder / values["profile"]).fitted["steps"]["model"] == "llama-3.1-8b"
    by_hand = blendplan.plan(requests, **(MACHINE | {"gpu": folder / values["profile"]}))
    whole = values["whole"]
    assert list(whole["policies"]) == ["fcfs", "dfs", "blend"]
    ours = whole["policies"]["blend"]["makespan_s"]
    assert by_hand.metadata["predicted"]["makespan_s"] == pytest.approx(ours)
    theirs = whole["policies"]["fcfs"]
    assert theirs["gain"] == pytest.approx(theirs["makespan_s"] / ours - 1)
    assert whole["policies"]["blend"]["gain"] == 0
    assert 0 < whole["policies"]["blend"]["bound_ratio"] <= 1


def test_a_replay_of_the_whole_takes_the_answers_over(
    requests: Requests, found: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = found
    plan = blendplan.plan(requests, **MACHINE)
    results = tmp_path / "results.jsonl"
    done = blendplan.replay(plan, "sim", results, already=folder / "planned.jsonl")
    assert (done.tally.already_done, done.tally.finished) == (120, 180)
    assert len(lines_of(results)) == 300
    taken = {line["custom_id"]: line for line in lines_of(folder / "planned.jsonl")}
    kept = [line for line in lines_of(results) if line["custom_id"] in taken]
    assert len(kept) == 120
    for line in kept:
        before = taken[line["custom_id"]]
        assert line["response"]["body"] == before["response"]["body"]


def test_the_same_trial_again_runs_nothing(
    requests: Requests, found: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, values = found
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.delattr("blendplan.proving.trial_runs.replay")
    lines: list[str] = []
    assert tried(requests, folder, remark=lines.append) == values
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert lines == [f"run before: {folder / f'{way}.jsonl'}" for way in WAYS]


def test_other_replicas_plan_the_job_anew_and_run_nothing(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tried(requests, tmp_path, most=40)
    monkeypatch.delattr("blendplan.proving.trial_runs.replay")
    two = tried(requests, tmp_path, most=40, replicas=2)
    assert two["runs"] == one["runs"]
    assert two["whole"]["replicas"] == 2
    times = [each["whole"]["policies"]["blend"]["makespan_s"] for each in (two, one)]
    assert times[0] < times[1]


@pytest.mark.parametrize("name", ["planned.steps.parquet", "planned.jsonl", "profile.toml"])
def test_what_was_removed_is_there_again(requests: Requests, tmp_path: Path, name: str) -> None:
    found = tried(requests, tmp_path, most=40)
    (tmp_path / name).unlink()
    again = tried(requests, tmp_path, most=40)
    assert again["gain"] == found["gain"]
    assert (tmp_path / name).exists()
    assert json.loads((tmp_path / "trial.json").read_text()) == again


def test_more_repeats_run_only_those_that_lack(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By turns, every other time in reverse."""
    tried(requests, tmp_path, most=40)
    first = json.loads((tmp_path / "trial.json").read_text())["runs"]
    values = tried(requests, tmp_path, most=40, repeats=3)
    assert values["runs"][:2] == first
    order = [(run["way"], run["repeat"]) for run in values["runs"]]
    assert order[:2] == [("input", 1), ("planned", 1)]
    assert order[2:] == [("planned", 2), ("input", 2), ("input", 3), ("planned", 3)]
    assert values["gain"]["repeats"] == 3
    assert values["gain"]["least"] == values["gain"]["most"] == values["gain"]["throughput"]
    steps = {way: values["prices"]["given"][way]["steps"] for way in WAYS}
    assert steps == {way: 3 * values["predicted"][way]["steps"] for way in WAYS}


def test_a_run_that_was_cut_short_begins_anew(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it is kept."""
    undone = SimulatedEngine.serve
    served = []

    def dies(self: SimulatedEngine, *arguments: Any) -> Any:
        served.append(self)
        if len({id(engine) for engine in served}) == 2 and len(served) % 50 == 0:
            raise KeyboardInterrupt
        return undone(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedEngine, "serve", dies)
        with pytest.raises(KeyboardInterrupt):
            tried(requests, tmp_path)
    begun = json.loads((tmp_path / "trial.json").read_text())
    assert [run["way"] for run in begun["runs"]] == ["input"]
    assert (tmp_path / "planned.jsonl.journal").exists()
    kept = (tmp_path / "input.jsonl").read_bytes()
    values = tried(requests, tmp_path)
    assert values["complete"]
    assert values["runs"][0] == begun["runs"][0]
    assert (tmp_path / "input.jsonl").read_bytes() == kept
    assert not (tmp_path / "planned.jsonl.journal").exists()
    assert values["gain"]["planned"]["makespan_s"] == values["predicted"]["planned"]["makespan_s"]


def test_fewer_requests_than_asked_for_are_all_of_them(tmp_path: Path) -> None:
    values = tried(job(1, 30), tmp_path, most=2000)
    assert values["excerpt"]["requests"] == {"whole": 30, "excerpt": 30}
    assert values["remarks"] == []


def test_lengths_that_nobody_stated_come_from_the_trial(tmp_path: Path) -> None:
    """For the whole job, whose plan would else go by a guess."""
    values = tried(job(2, 60, known=False), tmp_path, most=30, replan=False)
    assert values["whole"]["lengths"] == "sample"
    assert values["complete"]


def test_too_few_steps_to_learn_from(tmp_path: Path) -> None:
    requests = blendplan.requests_from_lists([[1, 2, 3]] * 3, output_tokens=[2, 2, 2])
    values = tried(requests, tmp_path)
    assert values["prices"] is None
    assert "at least 20 are needed" in values["no_prices"]
    assert values["profile"] is None
    assert not (tmp_path / "profile.toml").exists()
    assert values["whole"]["policies"]["blend"]["makespan_s"] > 0


def test_identical_requests_that_do_not_run_are_no_part_of_it(tmp_path: Path) -> None:
    once = blendplan.run_once(
        blendplan.requests_from_lists([[1, 2, 3], [4, 5], [1, 2, 3]], max_tokens=[40, 40, 40])
    )
    values = tried(once, tmp_path)
    lines = lines_of(tmp_path / "planned.jsonl")
    assert len(lines) == len(once) == values["excerpt"]["requests"]["excerpt"]


def test_another_trial_is_left_alone(requests: Requests, found: tuple[Path, Any]) -> None:
    folder, _ = found
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for options, what in (
        ({"most": 60}, "--requests, the plans changed"),
        ({"policy": "dfs"}, "--policy, the plans changed"),
        ({"max_num_seqs": 8}, "the engine's limits, the plans changed"),
    ):
        with pytest.raises(BlendplanError, match=f"holds another trial .{what} since"):
            tried(requests, folder, **options)
    with pytest.raises(BlendplanError, match="REQUESTS, the plans changed since"):
        tried(job(6, 200), folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "mine", "holds other files, and no trial; give another -o"),
        ("trial.json", "{}", "trial.json is no summary of a trial"),
        ("trial.json", "{", "trial.json is not JSON"),
        ("trial.json", '{"format": "blendplan-trial-1"}', "is no summary of a trial"),
        (
            "trial.json",
            '{"format": "blendplan-trial-1", "identity": {}, "runs": 5}',
            "is no summary of a trial",
        ),
    ],
)
def test_folders_of_others(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BlendplanError, match=message):
        tried(job(1, 20), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_wrong_arguments(requests: Requests, tmp_path: Path) -> None:
    for options, message in (
        ({"policy": "none"}, "unknown policy 'none'"),
        ({"repeats": 0}, "repeats is 0"),
        ({"most": 0}, "most is 0"),
        ({"kv_token": 3}, "unknown argument of trial.. 'kv_token'"),
        ({"engine_args": {"a": 1}}, "takes no engine arguments"),
    ):
        with pytest.raises(BlendplanError, match=message):
            tried(requests, tmp_path / "trial", **options)
    with pytest.raises(BlendplanError, match="unknown engine 'simm'"):
        trial(requests, "simm", tmp_path / "trial", **MACHINE)
    (tmp_path / "file").write_text("")
    with pytest.raises(BlendplanError, match="file exists; choose another place"):
        tried(requests, tmp_path / "file")
    assert not (tmp_path / "trial").exists()
