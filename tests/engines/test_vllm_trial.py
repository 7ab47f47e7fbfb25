"""A trial on the real vLLM: both ways on one engine, and a profile of what it measured."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import blendplan
from blendplan.hardware.lookup import gpu_spec
from blendplan.planfile.plan import Plan
from tests.engines.test_vllm_replay import ARGUMENTS
from tests.replaying.replay_jobs import assert_each_once, write_requests_file


def test_a_trial_measures_gain_and_prices(vllm: None, tiny_model: Path, tmp_path: Path) -> None:
    requests = blendplan.read_requests(write_requests_file(tmp_path / "requests.jsonl", 120))
    folder, told = tmp_path / "trial", list[str]()
    values = blendplan.trial(
        requests,
        "vllm",
        folder,
        gpu="l4",
        model=tiny_model,
        load=str(tiny_model),
        most=80,
        effort=0,
        kv_tokens=48 * 32,
        block_size=32,
        max_num_seqs=16,
        max_num_batched_tokens=128,
        max_model_len=1024,
        engine_args=ARGUMENTS,
        remark=told.append,
    )
    assert told == []  # the engine has the limits that were planned
    gain, predicted = values["gain"], values["predicted"]
    logs = {}
    for way in ("input", "planned"):
        assert_each_once(Plan.read(folder / f"{way}.plan.arrow"), folder / f"{way}.jsonl")
        assert gain[way]["output_tokens"] == predicted[way]["output_tokens"]
        logs[way] = pq.read_table(folder / f"{way}.steps.parquet")
        measured = values["prices"]["given"][way]
        assert measured["steps"] == logs[way].num_rows
        # Steps fill the run but for its beginning: no moment counts twice.
        (run,) = (run for run in values["runs"] if run["way"] == way)
        assert measured["measured_s"] < 1.05 * run["makespan_s"]
        # But for a request that arrives late, where the machine is busy.
        assert logs[way].num_rows == pytest.approx(predicted[way]["steps"], rel=0.1)
    assert gain["throughput"] == pytest.approx(
        gain["planned"]["throughput_tokens_per_s"] / gain["input"]["throughput_tokens_per_s"] - 1
    )
    # The price of an L4 says nothing of this CPU; the profile is of it.
    assert values["prices"]["given"]["planned"]["total_error"] < -0.5
    fitted = values["prices"]["fitted"].values()
    measured_s = sum(one["measured_s"] for one in fitted)
    assert sum(one["predicted_s"] for one in fitted) == pytest.approx(measured_s, rel=0.02)
    profile = gpu_spec(folder / "profile.toml").fitted["steps"]
    assert profile["steps"] == sum(log.num_rows for log in logs.values())
    assert values["whole"]["policies"]["blend"]["makespan_s"] > gain["planned"]["makespan_s"] / 20
