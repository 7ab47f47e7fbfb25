"""Plans for several replicas: one file, a part for each engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planning.compare import compare
from blendplan.planning.planner import plan
from blendplan.policy.registry import POLICIES
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from tests.cli.cli_runs import answer, error_line, run, write_job

SMALL: dict[str, Any] = {"gpu": "l4", "kv_tokens": 4_000, "max_num_seqs": 16, "overlap": 2.0}


def job(requests: int = 200) -> Requests:
    rng = np.random.default_rng(5)
    prefixes = rng.integers(0, 1000, (6, 64)).tolist()
    prompts = [
        [*prefixes[k % 6], *rng.integers(0, 1000, 1 + k % 40).tolist()] for k in range(requests)
    ]
    outputs = [1 + (k * 37) % 29 + (300 if k % 12 == 0 else 0) for k in range(requests)]
    return requests_from_lists(prompts, output_tokens=outputs)


@settings(max_examples=12)
@given(
    replicas=st.integers(2, 5),
    policy=st.sampled_from(POLICIES.names()),
    requests=st.integers(5, 60),
)
def test_every_request_is_in_one_part_and_the_file_verifies(
    tmp_path_factory: pytest.TempPathFactory, replicas: int, policy: str, requests: int
) -> None:
    path = tmp_path_factory.mktemp("plans") / "plan.arrow"
    plan(job(requests), policy=policy, replicas=replicas, **SMALL).write(path)
    made = Plan.read(path)
    made.verify()
    assert sorted(made.column("source_row")) == list(range(requests))
    assert made.metadata["replicas"] == replicas
    parts = [made.part(number) for number in range(replicas)]
    assert [len(part) for part in parts] == np.bincount(made.column("replica")).tolist()
    for number, part in enumerate(parts):
        part.verify()
        assert part.metadata["replicas"] == 1
        assert set(part.column("replica")) == {number}
        assert part.live_policy().admit(SMALL["kv_tokens"]).size


def test_the_slowest_part_is_the_makespan_and_totals_add_up() -> None:
    made = plan(job(), replicas=3, **SMALL)
    parts = [part["predicted"] for part in made.metadata["parts"]]
    whole = made.metadata["predicted"]
    assert whole["makespan_s"] == max(part["makespan_s"] for part in parts)
    assert whole["makespan_s"] == made.column("finish_s").max()
    for name in ("preemptions", "prompt_tokens", "output_tokens", "prefill_tokens"):
        assert whole[name] == sum(part[name] for part in parts)
    for name in ("compute_s", "memory_s"):
        assert whole[name] == pytest.approx(sum(part[name] for part in parts))
    tokens = whole["prompt_tokens"] + whole["output_tokens"]
    assert whole["throughput_tokens_per_s"] == pytest.approx(tokens / whole["makespan_s"])


def test_three_engines_are_nearly_three_times_as_fast() -> None:
    one = plan(job(3000), **SMALL).metadata
    three = plan(job(3000), replicas=3, **SMALL).metadata
    ratio = one["predicted"]["makespan_s"] / three["predicted"]["makespan_s"]
    assert 2.6 < ratio < 3.05
    # The bound of three engines is a third of one engine's where no single request is too long.
    assert three["bound_s"] == pytest.approx(one["bound_s"] / 3, rel=0.01)
    assert three["prefix_sharing"]["planned"] > 0.97 * one["prefix_sharing"]["planned"]


def test_one_long_request_bounds_any_number_of_engines() -> None:
    requests = requests_from_lists([[1, 2], [3], [4]], output_tokens=[400, 3, 3])
    made = plan(requests, replicas=3, **SMALL)
    assert made.metadata["bound_ratio"] == pytest.approx(1.0, abs=0.01)


def test_more_replicas_than_requests() -> None:
    made = plan(requests_from_lists([[1], [2]], output_tokens=[3, 3]), replicas=5, **SMALL)
    made.verify()
    assert made.metadata["replicas"] == 5
    assert len(made.metadata["parts"]) == 2


def test_compare_predicts_what_plan_predicts() -> None:
    compared = compare(job(), policies=("dfs", "blend"), replicas=3, **SMALL)
    for name in ("dfs", "blend"):
        made = plan(job(), policy=name, replicas=3, **SMALL)
        run = compared.outcomes[name].run
        assert run.makespan_s == made.metadata["predicted"]["makespan_s"]
        assert run.prefix_sharing == made.metadata["prefix_sharing"]["planned"]
        assert compared.outcomes[name].bound.makespan_s == made.metadata["bound_s"]
        by_row = np.argsort(made.column("source_row"))
        assert np.array_equal(run.finish_s, made.column("finish_s")[by_row])
        assert np.array_equal(run.cached_tokens, made.column("cached_tokens")[by_row])
        assert np.array_equal(run.admission, made.column("source_row"))


def test_a_plan_for_one_engine_is_its_own_part() -> None:
    made = plan(job(20), **SMALL)
    assert made.part(0) is made
    with pytest.raises(BlendplanError, match="no replica 1, it is for one engine"):
        made.part(1)


def test_parts_are_asked_for_by_number() -> None:
    made = plan(job(20), replicas=2, **SMALL)
    for number in (-1, 2):
        with pytest.raises(BlendplanError, match=f"no replica {number}; give 0 to 1"):
            made.part(number)
    with pytest.raises(BlendplanError, match="for 2 replicas"):
        made.live_policy()


def test_no_replicas_are_refused() -> None:
    with pytest.raises(BlendplanError, match="replicas is 0; give a whole number from 1 to 4096"):
        plan(job(5), replicas=0, **SMALL)


def test_the_command_line_plans_inspects_and_replays_parts(tmp_path: Path) -> None:
    path, results = tmp_path / "plan.arrow", tmp_path / "results.jsonl"
    requests = write_job(tmp_path / "job.jsonl")
    values = answer("plan", requests, "--gpu", "l4", "--replicas", "2", "-o", path)
    run("verify", path)
    inspected = answer("inspect", path)
    assert inspected["replicas"] == 2
    assert [part["requests"] for part in inspected["parts"]] == [
        len(Plan.read(path).part(number)) for number in (0, 1)
    ]
    assert "replicas 2" in run("inspect", path).stdout
    assert "--replica 0 to 1" in error_line(run("replay", path, "-o", results))
    replayed = answer("replay", path, "-o", results, "--replica", "1")
    assert replayed["requests"] == inspected["parts"][1]["requests"]
    compared = answer("compare", requests, "--gpu", "l4", "--replicas", "2", "--policies", "blend")
    del values["predicted"]["makespan_quantiles_s"]  # which a comparison does not work out
    assert compared["policies"]["blend"]["predicted"] == values["predicted"]
