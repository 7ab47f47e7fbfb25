"""What is said to be gained, from runs whose figures are given."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendplan.proving.trial_gain import gained, remarks
from blendplan.proving.trial_runs import ways


def run(way: str, repeat: int, makespan_s: float, **changes: Any) -> dict[str, Any]:
    output_tokens = changes.pop("output_tokens", 1000)
    return {
        "way": way,
        "repeat": repeat,
        "makespan_s": makespan_s,
        "throughput_tokens_per_s": (9000 + output_tokens) / makespan_s,
        "output_tokens": output_tokens,
        "prefix_sharing": 0.25,
        "preemptions": 3,
        "failed": 0,
        "restarts": 0,
        **changes,
    }


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=7))
def test_gains_are_of_runs_beside_each_other(makespans: list[tuple[float, float]]) -> None:
    runs = []
    for repeat, (theirs, ours) in enumerate(makespans, start=1):
        both = {"input": theirs, "planned": ours}
        runs += [run(way, repeat, both[way]) for way in ways(repeat)]
    found = gained(runs)
    gains = sorted(theirs / ours - 1 for theirs, ours in makespans)
    assert found["repeats"] == len(makespans)
    assert (found["least"], found["most"]) == (pytest.approx(gains[0]), pytest.approx(gains[-1]))
    middle = (gains[(len(gains) - 1) // 2] + gains[len(gains) // 2]) / 2
    assert found["throughput"] == pytest.approx(middle)
    assert found["makespan"] == pytest.approx(middle)  # of the same work
    assert found["same_output"]
    disagree = gains[0] < 0 < gains[-1]
    assert [line for line in remarks(found, runs) if "disagree" in line] == (
        ["repeats disagree on whether the plan is faster: what differs is chance"] * disagree
    )


def test_runs_of_different_work_are_compared_by_throughput() -> None:
    runs = [run("input", 1, 10.0), run("planned", 1, 10.0, output_tokens=1020)]
    found = gained(runs)
    assert found["throughput"] == pytest.approx(0.002)
    assert found["makespan"] == 0
    assert not found["same_output"]
    (line,) = remarks(found, runs)
    assert line.startswith("the planned run generated 2.0% more output tokens, so compare tokens")
    assert gained([run("input", 1, 1.0), run("planned", 1, 1.0, output_tokens=1009)])["same_output"]


def test_what_went_wrong_is_said() -> None:
    runs = [run("input", 1, 9.0, failed=2), run("planned", 1, 9.0, failed=1, restarts=1)]
    said = remarks(gained(runs), runs)
    assert said[0].startswith("requests failed: 2 in input order and 1 as planned;")
    assert said[1].startswith("the engine died")


def test_an_engine_may_not_tell_its_preemptions() -> None:
    found = gained([run("input", 1, 9.0, preemptions=None), run("planned", 1, 9.0)])
    assert found["input"]["preemptions"] is None
    assert found["planned"]["preemptions"] == 3


def test_ways_take_turns() -> None:
    assert [ways(repeat) for repeat in (1, 2)] == [("input", "planned"), ("planned", "input")]
