"""What a plan tells the engine that it runs on."""

from typing import Any

import pytest

from blendplan.engines.launch import launch_of
from blendplan.engines.protocol import Launch
from blendplan.engines.sglang import arguments as sglang
from blendplan.engines.vllm import arguments as vllm
from blendplan.planning.planner import plan
from tests.planfile.test_rerun import job


def launched(**machine: Any) -> Launch:
    made = plan(job(requests=3), gpu="a100-80g", effort=0, **machine)
    return launch_of(made, "m", {}, pdmux=False, log_steps=False, output=None)


@pytest.mark.parametrize(
    ("machine", "of_vllm", "of_sglang"),
    [
        ({}, 0.9, None),
        ({"gpu_memory_utilization": 0.5}, 0.5, 0.5),
        ({"kv_tokens": 4096}, None, None),
    ],
)
def test_an_engine_takes_the_memory_that_was_planned_with(
    machine: dict[str, float], of_vllm: float | None, of_sglang: float | None
) -> None:
    launch = launched(**machine)
    assert vllm.own_arguments(launch, None).get("gpu_memory_utilization") == of_vllm
    assert sglang.own_arguments(launch).get("mem_fraction_static") == of_sglang
