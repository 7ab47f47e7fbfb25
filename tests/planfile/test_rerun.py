"""`blendplan.simulate`: a plan on the engine that it was made for."""

import numpy as np
import pytest

import blendplan
from blendplan.policy.registry import POLICIES


def job() -> blendplan.Requests:
    rng = np.random.default_rng(3)
    prefix = rng.integers(0, 1_000, 64).tolist()
    return blendplan.requests_from_lists(
        [prefix + rng.integers(0, 1_000, rng.integers(1, 200)).tolist() for _ in range(120)],
        output_tokens=rng.integers(1, 300, 120),
    )


def made(policy: str) -> blendplan.Plan:
    return blendplan.plan(
        job(), gpu="a100-80g", policy=policy, overlap=2.0, kv_tokens=4_800, max_num_seqs=32
    )


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "blend"])
def test_known_lengths_come_out_as_planned(policy: str) -> None:
    plan = made(policy)
    run = blendplan.simulate(plan)
    predicted = plan.metadata["predicted"]
    assert run.makespan_s == predicted["makespan_s"]
    assert run.steps == predicted["steps"]
    assert run.preemptions == predicted["preemptions"]
    assert run.output_tokens == predicted["output_tokens"]


def test_blend_comes_out_nearly_as_planned() -> None:
    """Its timetable is read off the plan, where families are no longer known."""
    plan = made("blend")
    run = blendplan.simulate(plan)
    predicted = plan.metadata["predicted"]
    assert run.makespan_s == pytest.approx(predicted["makespan_s"], rel=0.02)
    assert run.output_tokens == predicted["output_tokens"]
