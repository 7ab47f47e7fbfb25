"""`Tail`: makespan given up for an earlier turnaround, never more than allowed."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan.errors import BlendplanError
from blendplan.planning.planner import plan
from blendplan.planning.quote import quote
from blendplan.planning.tail import Tail
from blendplan.requests.read import read_requests
from tests.cli.cli_runs import answer, error_line, run, write_job

SMALL: dict[str, Any] = {"gpu": "l4", "kv_tokens": 6_000, "max_num_seqs": 16}
SECONDS = st.floats(1.0, 100.0)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1), st.floats(0.01, 2.0))
def test_the_earliest_of_those_that_are_short_enough(
    runs: list[tuple[float, float]], share: float
) -> None:
    makespans, turnarounds = [one for one, _ in runs], [other for _, other in runs]
    chosen = Tail(share).choose(makespans, turnarounds)
    allowed = [one for one in runs if one[0] <= (1.0 + share) * min(makespans)]
    assert runs[chosen] in allowed
    assert turnarounds[chosen] == min(turnaround for _, turnaround in allowed)
    told = Tail(share).told(makespans, turnarounds, chosen)
    assert 0.0 <= told["longer"] <= share + 1e-9
    assert told["sooner"] >= 0.0 or makespans.count(min(makespans)) > 1


@pytest.mark.parametrize("soonest", ["p50", "p95", "p99"])
def test_a_plan_is_done_sooner_and_hardly_longer(tmp_path: Path, soonest: str) -> None:
    requests = read_requests(write_job(tmp_path / "job.jsonl", 120))
    shortest = plan(requests, **SMALL).metadata["predicted"]
    traded = plan(requests, **SMALL, tail=0.2, soonest=soonest).metadata
    predicted, tail = traded["predicted"], traded["tail"]
    assert predicted["makespan_s"] <= 1.2 * shortest["makespan_s"]
    assert predicted["turnaround_s"][soonest] <= shortest["turnaround_s"][soonest]
    longer = predicted["makespan_s"] / shortest["makespan_s"] - 1.0
    assert tail["longer"] == pytest.approx(longer, abs=1e-9)
    sooner = 1.0 - predicted["turnaround_s"][soonest] / shortest["turnaround_s"][soonest]
    assert tail["sooner"] == pytest.approx(sooner, abs=1e-9)
    (offer,) = quote(requests, **SMALL, tail=0.2, soonest=soonest, processes=1).offers
    assert offer.makespan_s == predicted["makespan_s"]


def test_plan_and_inspect_say_what_it_costs(tmp_path: Path) -> None:
    requests = write_job(tmp_path / "job.jsonl", 120)
    words = ("--gpu", "l4", "--kv-tokens", "6000", "--max-num-seqs", "16", "--tail", "0.2")
    path = tmp_path / "plan.arrow"
    made = answer("plan", requests, *words, "--soonest", "p50", "-o", path)
    assert made["tail"]["share"] == 0.2
    assert answer("inspect", path)["tail"] == made["tail"]
    assert answer("verify", path)["verified"]
    assert "P50 of the turnaround is" in run("inspect", path).stdout
    quoted = answer("quote", requests, *words, "--processes", "1")
    assert "--tail 0.2" in quoted["plan_command"]
    parts = plan(read_requests(requests), **SMALL, replicas=2, tail=0.2).metadata["parts"]
    assert [part["tail"]["soonest"] for part in parts] == ["p95", "p95"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tail": 0.0}, "tail is 0.0; give a number above 0"),
        ({"tail": "much"}, "tail is"),
        ({"tail": 0.1, "soonest": "p90"}, "unknown soonest 'p90'"),
        ({"tail": 0.1, "effort": 0}, "nothing to choose from"),
        ({"tail": 0.1, "policy": "dfs"}, "nothing to choose from"),
    ],
)
def test_bad_arguments_get_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    requests = read_requests(write_job(tmp_path / "job.jsonl", 9))
    with pytest.raises(BlendplanError) as caught:
        plan(requests, gpu="l4", **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tail", "0"), "0"),
        (("--tail", "0.1", "--soonest", "p96"), "did you mean 'p99' or 'p95'"),
        (("--tail", "0.1", "-o", "plan/"), "--tail plans into a file"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    requests = write_job(tmp_path / "job.jsonl", 9)
    result = run("plan", requests, "--gpu", "l4", "-o", tmp_path / "plan.arrow", *words)
    assert result.exit_code == 2
    assert said in error_line(result)
