"""`outlook`: how long a plan may take, as far as output lengths are unknown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from blendplan.cost.machine import Machine, machine
from blendplan.lengths.prior import COMMON_ERROR
from blendplan.planning.outlook import Outlook, common_factors, together
from blendplan.planning.planner import plan
from blendplan.planning.prepare import Prepared, prepare
from blendplan.planning.run_policy import run_policy
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists
from tests.cli.cli_runs import answer, run, write_job

SMALL: dict[str, Any] = {"gpu": "l4", "kv_tokens": 60_000}


def job(known: bool, requests: int = 300, cap: int | None = 400) -> Requests:
    prompts = [[k % 3, 7, *range(k % 60)] for k in range(requests)]
    outputs = [1 + (k * 37) % 200 for k in range(requests)]
    return requests_from_lists(
        prompts,
        output_tokens=outputs if known else None,
        max_tokens=None if cap is None else [cap] * requests,
        ids=[f"r{k}" for k in range(requests)],
    )


def seen(known: bool = False, cap: int = 400, seed: int = 0) -> tuple[Prepared, Machine]:
    target = machine(**SMALL)
    return prepare(job(known, cap=cap), target, seed=seed), target


def found(known: bool = False, cap: int = 400, seed: int = 0) -> Outlook:
    predicted = run_policy(*seen(known, cap, seed), "dfs", seed=seed)
    assert predicted.outlook is not None
    return predicted.outlook


def test_known_lengths_leave_nothing_to_chance() -> None:
    predicted = run_policy(*seen(known=True), "dfs")
    makespan_s = predicted.run.makespan_s
    assert predicted.outlook is not None
    assert predicted.outlook.as_metadata() == {"p50": makespan_s, "p90": makespan_s}
    assert predicted.outlook.chance(0.999 * makespan_s) == 0.0
    assert predicted.outlook.chance(makespan_s) == 1.0


def test_quantiles_and_chances_say_the_same() -> None:
    outlook = Outlook(np.arange(1.0, 101.0))
    for share in (0.1, 0.5, 0.9):
        assert outlook.chance(outlook.quantile(share)) == pytest.approx(share, abs=0.011)
    assert outlook.chance(0.5) == 0.0
    assert outlook.chance(100.0) == 1.0


def test_factors_are_log_normal_and_the_first_changes_nothing() -> None:
    for error in (0.2, 1.4):
        factors = common_factors(error, 128)
        assert factors[0] == 1.0
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            expected = np.exp(error * ndtri(share))
            assert np.quantile(factors, share) == pytest.approx(expected, rel=0.15 * error)
    assert np.array_equal(common_factors(0.0, 16), np.ones(16))


def test_the_same_requests_have_the_same_outlook_and_another_seed_a_similar_one() -> None:
    one, again, other = found(), found(), found(seed=1)
    assert np.array_equal(one.makespans_s, again.makespans_s)
    assert not np.array_equal(one.makespans_s, other.makespans_s)
    assert one.quantile(0.5) == pytest.approx(other.quantile(0.5), rel=0.15)


@pytest.mark.parametrize("kv_tokens", [20_000, 60_000])
def test_simulated_runs_of_other_lengths_take_as_long_as_it_says(kv_tokens: int) -> None:
    """The obvious way: draw lengths, simulate, look at how long that takes."""
    target = machine(gpu="l4", kv_tokens=kv_tokens)
    known = prepare(job(False), target)
    predicted = run_policy(known, target, "dfs")
    random = np.random.default_rng(3)
    makespans = []
    for factor in np.exp(COMMON_ERROR * ndtri((np.arange(40) + 0.5) / 40)):
        place = random.integers(0, 10, len(known.requests))
        drawn = known.expected.outcomes[np.arange(len(place)), place]
        outputs = np.clip(np.rint(factor * drawn), 1, 400).astype(np.int32)
        trial = replace(known, workload=replace(known.workload, output_tokens=outputs))
        makespans.append(run_policy(trial, target, "dfs", chances=False).run.makespan_s)
    assert predicted.outlook is not None
    for share in (0.2, 0.5, 0.8, 0.9, 0.95):
        expected = np.quantile(makespans, share)
        assert predicted.outlook.quantile(share) == pytest.approx(expected, rel=0.1)


def test_a_cap_bounds_how_long_it_may_take() -> None:
    tight, loose = (
        outlook.quantile(0.9) / outlook.quantile(0.5)
        for outlook in (found(cap=50), found(cap=2000))
    )
    assert 1.0 < tight < 0.7 * loose


def write_sample(path: Path, results: int) -> Path:
    lines = [{"id": f"r{k}", "output_tokens": 1 + (k * 37) % 200} for k in range(results)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_more_samples_make_it_surer(tmp_path: Path) -> None:
    spreads = []
    for results in (10, 100, 300):
        sample = write_sample(tmp_path / f"{results}.jsonl", results)
        made = plan(job(False), **SMALL, policy="dfs", lengths=f"sample:{sample}")
        quantiles = made.metadata["predicted"]["makespan_quantiles_s"]
        spreads.append(quantiles["p90"] / quantiles["p50"])
    assert spreads[0] > spreads[1] > spreads[2] == 1.0


def test_replicas_have_an_outlook_too() -> None:
    made = plan(job(False), **SMALL, policy="dfs", replicas=2).metadata
    whole = made["predicted"]
    assert whole["makespan_quantiles_s"]["p50"] == pytest.approx(whole["makespan_s"], rel=0.15)
    assert whole["makespan_quantiles_s"]["p90"] > whole["makespan_quantiles_s"]["p50"]
    for part in made["parts"]:
        quantiles = part["predicted"]["makespan_quantiles_s"]
        assert quantiles["p90"] > quantiles["p50"] > 0


def test_plan_and_inspect_show_it(tmp_path: Path) -> None:
    unknown = write_job(tmp_path / "unknown.jsonl", known_lengths=False)
    plan_file = tmp_path / "plan.arrow"
    made = answer("plan", unknown, "--gpu", "l4", "-o", plan_file)
    quantiles = made["predicted"]["makespan_quantiles_s"]
    assert set(quantiles) == {"p50", "p90"}
    assert answer("inspect", plan_file)["predicted"]["makespan_quantiles_s"] == quantiles
    assert "nine times in ten" in run("inspect", plan_file).stdout
    known = write_job(tmp_path / "known.jsonl")
    answer("plan", known, "--gpu", "l4", "-o", plan_file)
    assert "nine times in ten" not in run("inspect", plan_file).stdout


def test_engines_side_by_side_end_with_the_last() -> None:
    one, other = Outlook(np.array([1.0, 5.0])), Outlook(np.array([3.0, 4.0]))
    assert together([one, other]).makespans_s.tolist() == [3.0, 5.0]
    assert together([one, Outlook(np.array([2.0]))]).makespans_s.tolist() == [2.0, 5.0]


def test_a_folder_of_parts_has_the_outlook_of_all(tmp_path: Path) -> None:
    unknown = write_job(tmp_path / "unknown.jsonl", known_lengths=False)
    made = answer(
        *("plan", unknown, "--gpu", "l4", "--replicas", "2", "--processes", "1"),
        *("-o", f"{tmp_path}/plan/"),
    )
    shown = answer("inspect", tmp_path / "plan")
    for name in ("p50", "p90"):
        parts = [part["predicted"]["makespan_quantiles_s"][name] for part in shown["parts"]]
        assert made["predicted"]["makespan_quantiles_s"][name] >= max(parts)
