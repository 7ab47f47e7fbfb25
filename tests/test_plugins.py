"""Plug-ins of every kind from a package outside the source tree, found by their entry points.

They are the examples of docs/extending.md.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from blendplan.cli.compilation import NOTICE
from blendplan.planfile.plan import Plan
from tests.cli.cli_runs import SOURCES, write_job

GUIDE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
ENTRY_POINTS = """
[blendplan.policies]
shortest = shortest_first:SHORTEST

[blendplan.engines]
echo = echo_engine:ECHO
broken = no_such_module:KIND
sim = echo_engine:ECHO

[blendplan.cost_models]
flat = flat_cost:flat_cost

[blendplan.length_predictors]
as-prompt = as_prompt:AsPrompt
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages with one distribution in it."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.DOTALL):
        (folder / name).write_text(text)
    installed = folder / "toys-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job") / "requests.jsonl", 30, known_lengths=False)


@pytest.fixture(scope="module")
def plan_file(site: Path, job: Path) -> Path:
    """A plan in which policy, cost model and length predictor are all foreign."""
    path = job.with_name("plan.arrow")
    options = ["--policy", "shortest", "--cost", "flat", "--lengths", "as-prompt"]
    answer(site, "plan", job, "--gpu", "l4", *options, "-o", path)
    return path


def run(site: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command in a process that finds the plug-ins."""
    return subprocess.run(
        [sys.executable, "-m", "blendplan", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{SOURCES}"},
        capture_output=True,
        text=True,
        check=False,
    )


def answer(site: Path, *arguments: str | Path) -> Mapping[str, object]:
    done = run(site, *arguments, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def error_line(site: Path, *arguments: str | Path) -> str:
    done = run(site, *arguments)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line != NOTICE]
    return line


def test_plan_uses_what_others_registered(plan_file: Path) -> None:
    plan = Plan.read(plan_file)
    assert plan.metadata["policy"] == "shortest"
    assert plan.metadata["cost_model"] == {
        "name": "flat",
        "parameters": {"step_s": 1e-3, "token_s": 1e-5, "read_s": 1e-9},
        "note": "prices are made up",
    }
    prompts = plan.column("prompt_tokens")
    assert prompts.tolist() == sorted(prompts)
    assert plan.column("output_tokens_mean").tolist() == prompts.tolist()
    assert plan.column("output_tokens_p90").tolist() == (2 * prompts).tolist()


def test_replay_runs_a_foreign_engine(site: Path, plan_file: Path) -> None:
    output = plan_file.with_name("results.jsonl")
    told = answer(site, "replay", plan_file, "--engine", "echo", "-o", output)
    assert (told["engine"], told["finished"], told["failed"]) == ("echo", 30, 0)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {line["response"]["body"]["choices"][0]["text"] for line in lines} == {"echo"}


def test_a_sample_needs_no_plan(site: Path, job: Path) -> None:
    output = job.with_name("sample.jsonl")
    words = ("sample", job, "--engine", "echo", "-o", output)
    told = answer(site, *words)
    assert (told["requests"], told["finished"], told["predicted"]) == (30, 30, {})
    # Nothing was planned for: the limits are the engine's own.
    assert told["kv_tokens"] == 100_000
    again = answer(site, *words, "--resume")
    assert (again["already_done"], again["finished"]) == (30, 0)


def test_simulation_brings_foreign_policy_and_prices_back(site: Path, plan_file: Path) -> None:
    told = answer(site, "replay", plan_file, "--engine", "sim")
    predicted = told["predicted"]
    assert isinstance(predicted, dict)
    assert told["makespan_s"] == pytest.approx(predicted["makespan_s"])
    assert told["steps"] == predicted["steps"]


def test_compare_takes_foreign_policies(site: Path, job: Path) -> None:
    options = ["--gpu", "l4", "--cost", "flat", "--lengths", "as-prompt"]
    told = answer(site, "compare", job, *options, "--policies", "fcfs,shortest")
    policies = told["policies"]
    assert isinstance(policies, dict)
    assert list(policies) == ["fcfs", "shortest"]
    assert {one["cost_model"] for one in policies.values()} == {"flat"}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("plan {job} --gpu l4 -o p --policy shortst", ["policy 'shortst'", "'shortest'"]),
        ("plan {job} --gpu l4 -o p --policy zzz", ["choose from fcfs, ", ", blend, shortest"]),
        ("plan {job} --gpu l4 -o p --cost zzz", ["choose from calibrated, datasheet, flat"]),
        ("plan {job} --gpu l4 -o p --lengths zzz", ["history:FILE, nearest:FILE, as-prompt"]),
        ("plan {job} --gpu l4 -o p --lengths as-prompt:x", ["'as-prompt' takes no file"]),
        ("replay p --engine zzz", ["choose from sim, vllm, sglang, echo, broken"]),
        ("replay p --engine eco", ["unknown engine 'eco'; did you mean 'echo'?"]),
        ("replay p --engine echo", ["--engine echo needs -o FILE"]),
        ("replay p --engine broken", ["registered as 'no_such_module:KIND'", "cannot be imported"]),
        ("replay {plan} --engine echo -o {job}.r --pdmux", ["spatial sharing is SGLang's"]),
        ("replay {plan} --engine echo -o {job}.r --step-log {job}.s", ["Echo does not tell"]),
    ],
)
def test_what_is_wrong_is_one_line_that_knows_the_foreign_names(
    site: Path, job: Path, plan_file: Path, words: str, parts: list[str]
) -> None:
    line = error_line(site, *words.format(job=job, plan=plan_file).split())
    for part in parts:
        assert part in line


def test_help_lists_foreign_names_even_of_a_broken_package(site: Path) -> None:
    shown = " ".join(run(site, "replay", "--help").stdout.split())
    assert "echo, answers at once; broken." in shown
    # Our own name wins.
    assert "sim, simulates the steps" in shown
    shown = " ".join(run(site, "plan", "--help").stdout.split())
    for names in ("blend, shortest", "datasheet, flat", "nearest, as-prompt"):
        assert names in shown


def test_a_plan_says_which_plug_in_is_missing(plan_file: Path, tmp_path: Path) -> None:
    line = error_line(tmp_path, "replay", plan_file, "--engine", "sim")
    assert "unknown cost model 'flat'" in line or "unknown policy 'shortest'" in line


WRONG_PRICES = """
import numpy as np
from flat_cost import FlatCost


class Wrong(FlatCost):
    name = "wrong"

    def step_table(self, *limits):
        table = super().step_table(*limits)
        return table._replace({change})


def wrong(model, gpu, tp):
    return Wrong()
"""
WRONG_LENGTHS = """
import numpy as np
from blendplan.lengths.predicted import Lengths
from as_prompt import AsPrompt


class Wrong(AsPrompt):
    def predict(self, requests, tree):
        mean = np.asarray(requests.prompt_tokens, float)
        mean[3] = np.nan
        return Lengths.predicted({columns})
"""


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("cost", WRONG_PRICES.format(change="linear_s=-table.linear_s"), "linear_s[1] is -1e-05"),
        ("cost", WRONG_PRICES.format(change="head_s=np.zeros(3)"), "head_s is float64 [3]"),
        ("cost", WRONG_PRICES.format(change="overlap=7.0"), "overlap 7.0"),
        (
            "lengths",
            WRONG_LENGTHS.format(columns="np.outer(mean, np.ones(10)), mean, mean"),
            "outcomes of request 3 is nan",
        ),
        (
            "lengths",
            WRONG_LENGTHS.format(columns="mean[:2], mean, mean"),
            "outcomes has the shape [2]",
        ),
    ],
)
def test_what_plug_ins_compute_is_checked(
    site: Path, job: Path, tmp_path: Path, kind: str, text: str, message: str
) -> None:
    (tmp_path / "wrong.py").write_text(text)
    installed = tmp_path / "wrong-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    group, name = {
        "cost": ("cost_models", "wrong:wrong"),
        "lengths": ("length_predictors", "wrong:Wrong"),
    }[kind]
    (installed / "entry_points.txt").write_text(f"[blendplan.{group}]\nwrong = {name}\n")
    both = Path(f"{tmp_path}{os.pathsep}{site}")
    line = error_line(both, "plan", job, "--gpu", "l4", f"--{kind}", "wrong", "-o", tmp_path / "p")
    assert message in line
    assert "'wrong'" in line
