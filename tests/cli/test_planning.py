"""plan, replay, compare, inspect and verify on a small job."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from blendplan.planfile.plan import Plan
from blendplan.policy.registry import POLICIES
from tests.cli.cli_runs import answer, error_line, run, write_job

HEADLINE = [
    "requests",
    "policy",
    "gpu",
    "tp",
    "replicas",
    "model",
    "cost_model",
    "overlap",
    "density",
    "prefix_sharing",
    "predicted",
    "bound_s",
    "bound_ratio",
    "replan",
    "order",
    "burst_steps",
]
PREDICTED = [
    "makespan_s",
    "makespan_quantiles_s",
    "throughput_tokens_per_s",
    "steps",
    "preemptions",
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job") / "requests.jsonl")


@pytest.fixture(scope="module")
def plan_file(job: Path) -> Path:
    path = job.with_name("plan.arrow")
    result = run("plan", job, "--gpu", "a100-80g", "--kv-tokens", "4096", "-o", path)
    assert result.exit_code == 0, result.stderr
    return path


def test_plan_writes_a_plan_and_says_what_it_promises(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    result = run("plan", job, "--gpu", "a100", "-o", path)
    assert result.exit_code == 0
    for word in ("60", "llama-3.1-8b on a100-80g", "policy", "tokens/s", str(path)):
        assert word in result.stdout
    assert len(Plan.read(path).verify()) > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.arrow"]


def test_json_of_plan_has_the_promised_keys(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    values = answer("plan", job, "--gpu", "a100-80g", "-o", path)
    assert list(values)[: len(HEADLINE)] == HEADLINE
    assert list(values["predicted"]) == PREDICTED
    assert sorted(values["prefix_sharing"]) == ["optimal", "planned"]
    assert values["requests"] == 60
    assert values["rejected"] == 0
    assert values["bound_ratio"] == pytest.approx(
        values["bound_s"] / values["predicted"]["makespan_s"]
    )
    assert values["plan_wall_s"] > 0
    assert values["compile_s"] >= 0


def test_quiet_plan_prints_nothing(job: Path, tmp_path: Path) -> None:
    result = run(
        "plan", job, "--gpu", "l4", "-o", tmp_path / "p", "--quiet", "--model", "phi-3-mini"
    )
    assert (result.exit_code, result.output) == (0, "")


def test_options_reach_the_plan(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    options = {
        "--policy": "random",
        "--seed": "7",
        "--overlap": "inf",
        "--tp": "2",
        "--model": "qwen-3-8b",
        "--kv-tokens": "8192",
        "--max-num-seqs": "8",
        "--max-num-batched-tokens": "512",
        "--block-size": "32",
        "--kv-dtype": "fp8",
    }
    words = [word for option in options.items() for word in option]
    values = answer("plan", job, "--gpu", "h100-80g", "-o", path, *words)
    assert values["overlap"] == "inf"
    metadata = Plan.read(path).metadata
    assert metadata["policy"] == "random"
    assert metadata["policy_parameters"]["seed"] == 7
    assert metadata["tp"] == 2
    assert metadata["model"] == "qwen-3-8b"
    engine = metadata["engine"]
    assert engine["kv_tokens"] == 8192
    assert engine["max_num_seqs"] == 8
    assert engine["max_num_batched_tokens"] == 512
    assert engine["block_size"] == 32
    assert engine["kv_dtype"] == "fp8"


def test_replicas_share_the_requests(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.arrow"
    answer("plan", job, "--gpu", "a100-80g", "--replicas", "2", "-o", path)
    assert set(Plan.read(path).column("replica")) == {0, 1}
    assert answer("inspect", path)["replicas"] == 2
    assert "replicas 2" in run("inspect", path).stdout
    assert run("verify", path).exit_code == 0
    words = ("compare", job, "--gpu", "a100-80g", "--replicas", "2", "--policies", "fcfs,blend")
    assert run(*words).exit_code == 0


def test_the_same_command_writes_the_same_file(job: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        answer("plan", job, "--gpu", "a100-80g", "-o", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_skipped_requests_are_kept_and_counted(job: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(job.read_text() + '{"prompt": ""}\nnot json\n')
    result = run(
        "plan", mixed, "--gpu", "h200", "--on-error", "skip", "-o", tmp_path / "p", "--json"
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["rejected"] == 2
    rejects = tmp_path / "mixed.jsonl.rejects.jsonl"
    assert f"left out 2 bad or too long requests, see {rejects}" in result.stderr
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [61, 62]
    named = tmp_path / "named.jsonl"
    run(
        "plan",
        mixed,
        "--gpu",
        "h200",
        "--on-error",
        "skip",
        "--rejects",
        named,
        "-o",
        tmp_path / "p",
    )
    assert named.read_text() == rejects.read_text()


def test_a_sample_is_a_request_file_and_its_results_give_lengths(tmp_path: Path) -> None:
    job = write_job(tmp_path / "unknown.jsonl", 900, known_lengths=False)
    sample, results = tmp_path / "sample.jsonl", tmp_path / "results.jsonl"
    words = ("plan", job, "--gpu", "h200")
    values = answer(*words, "--sample-out", sample, "--fraction", "0.25")
    lines = sample.read_text().splitlines()
    error = values.pop("expected_error")
    assert values == {"requests": 900, "sampled": 225, "sample_out": str(sample)}
    assert len(lines) == 225
    assert 0.08 < error < 0.13
    assert set(lines) <= set(job.read_text().splitlines())
    said = " ".join(run(*words, "--sample-out", sample, "--fraction", "0.25").stdout.split())
    assert "run them" in said
    assert f"expect the total of the output tokens to within {100 * error:.0f} %" in said

    ids = [json.loads(line)["id"] for line in lines]
    assert {id.partition("-")[0] for id in ids} == {"exam", "chat", "long"}
    results.write_text("".join(json.dumps({"id": id, "output_tokens": 77}) + "\n" for id in ids))
    answer(*words, "--lengths", f"sample:{results}", "-o", tmp_path / "plan.arrow")
    assert set(Plan.read(tmp_path / "plan.arrow").column("output_tokens_mean")) == {77}


def test_weak_lengths_are_remarked_upon(tmp_path: Path) -> None:
    job = write_job(tmp_path / "unknown.jsonl", known_lengths=False)
    result = run("plan", job, "--gpu", "h200", "-o", tmp_path / "plan.arrow")
    assert "sample" in result.stderr
    assert result.stderr.count("\n") == 1


def test_compare_nests_the_same_keys_per_policy(job: Path) -> None:
    values = answer("compare", job, "--gpu", "a100-80g", "--policies", "dfs,fcfs", "--seed", "3")
    assert list(values["policies"]) == ["dfs", "fcfs"]
    for name, policy in values["policies"].items():
        assert list(policy) == [*HEADLINE, "plan_wall_s"]
        assert policy["policy"] == name


def test_compare_and_plan_predict_the_same(job: Path, tmp_path: Path) -> None:
    words = (job, "--gpu", "a100-80g", "--overlap", "2")
    planned = answer("plan", *words, "--policy", "dfs", "-o", tmp_path / "p")
    compared = answer("compare", *words, "--policies", "fcfs,dfs")["policies"]["dfs"]
    del planned["predicted"]["makespan_quantiles_s"]  # which only plans work out
    assert {key: planned[key] for key in HEADLINE} == {key: compared[key] for key in HEADLINE}


def test_compare_draws_a_row_per_policy(job: Path) -> None:
    result = run("compare", job, "--gpu", "a100-80g")
    assert result.exit_code == 0
    rows, _, said = result.stdout.partition("\n\n")
    assert [line.split()[0] for line in rows.splitlines()[2:]] == list(POLICIES)
    assert said.strip().endswith(".")


def test_inspect_draws_totals_groups_and_time(plan_file: Path) -> None:
    result = run("inspect", plan_file)
    assert result.exit_code == 0
    for word in (
        "4,096 KV tokens",
        "exam",
        "chat",
        "long",
        "compute time",
        "KV cache",
        "partition",
    ):
        assert word in result.stdout
    assert "█" in result.stdout


def test_json_of_inspect_has_the_promised_keys(plan_file: Path) -> None:
    values = answer("inspect", plan_file)
    assert list(values)[: len(HEADLINE)] == HEADLINE
    assert list(values["predicted"]) == PREDICTED
    assert {row["name"]: row["requests"] for row in values["families"]} == {
        "exam": 20,
        "chat": 20,
        "long": 20,
    }
    assert sum(row["requests"] for row in values["sides"]) == 60
    assert values["engine"]["kv_tokens"] == 4096


def test_verify_says_what_it_checked(plan_file: Path, job: Path) -> None:
    values = answer("verify", plan_file)
    assert values["verified"] is True
    assert any("60 requests" in line for line in values["checked"])
    told = run("verify", plan_file, "--requests", job)
    assert told.exit_code == 0
    assert "made from requests.jsonl" in told.stdout


def test_verify_tells_another_request_file(plan_file: Path, tmp_path: Path) -> None:
    other = write_job(tmp_path / "other.jsonl", requests=59)
    result = run("verify", plan_file, "--requests", other)
    assert result.exit_code == 1
    assert "is not the request file of this plan" in error_line(result)


def test_replay_on_the_simulated_engine_reaches_what_was_planned(
    plan_file: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    values = answer("replay", plan_file, "--engine", "sim", "-o", results)
    assert len(results.read_text().splitlines()) == 60
    assert values["requests"] == 60


def test_replay_tells_how_it_went_beside_the_plan(plan_file: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    told = run("replay", plan_file, "-o", results)
    assert told.exit_code == 0
    for word in ("60: 60 finished", "sim", "planned", "tokens/s", str(results)):
        assert word in told.stdout
    assert run("replay", plan_file, "--quiet").output == ""


@pytest.mark.parametrize("word", ["block_size", "=16", "block size=16"])
def test_engine_arguments_have_a_name_and_a_value(plan_file: Path, word: str) -> None:
    result = run("replay", plan_file, "--engine-arg", word)
    assert result.exit_code == 2
    assert "is not KEY=VALUE" in error_line(result)


def test_real_engines_need_a_place_for_results(plan_file: Path) -> None:
    result = run("replay", plan_file, "--engine", "vllm")
    assert result.exit_code == 2
    assert "needs -o FILE" in error_line(result)


def test_failed_and_interrupted_replays_say_so_by_their_exit_code(
    plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blendplan.replaying.run import Replayed
    from blendplan.replaying.tally import Tally

    for tally, interrupted, code, words in (
        (Tally(60, finished=58, failed=2), False, 1, "2 of 60 requests failed"),
        (Tally(60, finished=10), True, 130, "interrupted; --resume continues the run"),
    ):
        planned = Plan.read(plan_file).metadata["predicted"]
        outcome = Replayed("sim", tally, interrupted, None, planned)
        monkeypatch.setattr("blendplan.replaying.run.replay", lambda *_, o=outcome, **__: o)
        result = run("replay", plan_file, "--json")
        assert result.exit_code == code
        assert json.loads(result.stdout)["failed"] == tally.failed
        assert words in result.stderr


def test_there_are_no_control_codes_in_a_pipe(job: Path, tmp_path: Path) -> None:
    result = run("plan", job, "--gpu", "a100-80g", "-o", tmp_path / "p")
    assert "\x1b" not in result.output


def test_a_plan_survives_other_arrow_tools(plan_file: Path) -> None:
    table = pa.ipc.open_file(str(plan_file)).read_all()
    assert table.num_rows == 60
    assert b"blendplan" in table.schema.metadata


def test_brackets_in_a_path_are_text(job: Path, tmp_path: Path) -> None:
    path = tmp_path / "[red]plan.arrow"
    assert "[red]plan.arrow" in run("plan", job, "--gpu", "a100-80g", "-o", path).stdout
