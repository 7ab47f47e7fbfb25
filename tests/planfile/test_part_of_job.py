"""What a plan says of a part of a job: numbers of requests add up, and nothing else passes."""

from copy import deepcopy
from typing import Any

import pytest

from blendplan.errors import BlendplanError
from blendplan.planfile.part_of_job import check_part_of_job

RIGHT: dict[str, Any] = {
    "requests": 5,
    "predicted": {"makespan_quantiles_s": {"p50": 1.0, "p90": 2.0}},
    "window": {"within_s": 60.0, "chance": 0.9, "first": "work", "postponed": 3},
    "coverage": {
        "file": 12,
        "planned": 5,
        "postponed": 3,
        "already": 3,
        "repeated": 1,
        "rejected": 0,
    },
}


def test_what_is_right_passes_and_so_does_a_plan_of_everything() -> None:
    check_part_of_job(RIGHT)
    check_part_of_job({"requests": 5, "predicted": {}})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("predicted", "makespan_quantiles_s", "p90"), -1.0, "makespan_quantiles_s"),
        (("predicted", "makespan_quantiles_s"), {"p90": 1.0}, "makespan_quantiles_s.p50"),
        (("predicted", "makespan_quantiles_s"), [1.0], "it must be an object"),
        (("window",), None, "it must be an object"),
        (("window", "within_s"), 0, "window.within_s is 0"),
        (("window", "chance"), "high", "window.chance"),
        (("window", "first"), 7, "window.first"),
        (("window", "postponed"), -1, "window.postponed"),
        (("coverage", "already"), 4, "do not add up"),
        (("coverage", "file"), 2.5, "coverage.file"),
        (("coverage", "planned"), 4, "coverage.planned is 4, requests 5"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[str, ...], value: object, said: str) -> None:
    metadata = deepcopy(RIGHT)
    inner = metadata
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BlendplanError, match=said):
        check_part_of_job(metadata)
