"""`blendplan.simulate`: a plan on the engine that it was made for, exactly as planned."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blendplan
from blendplan.policy.registry import POLICIES

# Columns of a plan that its simulated run has written.
RUN = {
    "batch": "admission_step",
    "start_s": "start_s",
    "finish_s": "finish_s",
    "cached_tokens": "cached_tokens",
    "prefill_budget_tokens": "prefill_budget",
}


def job(
    seed: int = 3, requests: int = 120, known: bool = True, *, answers: int = 1
) -> blendplan.Requests:
    """Requests of two families and of none, in an order that has nothing to do with them.

    Args:
        seed: of everything that is drawn.
        requests: how many.
        known: whether all of them state their output length, or a fifth.
        answers: most answers that a request asks for.
    """
    rng = np.random.default_rng(seed)
    prefixes = [rng.integers(0, 1_000, size).tolist() for size in (64, 200, 0)]
    prompts = [
        prefixes[rng.integers(3)] + rng.integers(0, 1_000, rng.integers(1, 120)).tolist()
        for _ in range(requests)
    ]
    outputs = np.minimum(300, 1 + rng.lognormal(3.5, 1.2, requests).astype(int))
    caps = [300 if rng.random() < 0.5 else None for _ in range(requests)]
    lengths = [int(n) if known or rng.random() < 0.2 else None for n in outputs]
    numbers = rng.integers(1, answers + 1, requests)
    return blendplan.requests_from_lists(
        prompts, output_tokens=lengths, max_tokens=caps, answers=numbers
    )


@given(
    policy=st.sampled_from(POLICIES.names()),
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 80),
    known=st.booleans(),
    kv_tokens=st.integers(700, 4_000),
    overlap=st.sampled_from([1.0, 2.0]),
    effort=st.sampled_from([0, 1]),
    answers=st.sampled_from([1, 4]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_every_policy_takes_exactly_the_planned_steps(
    policy: str,
    seed: int,
    requests: int,
    known: bool,
    kv_tokens: int,
    overlap: float,
    effort: int,
    answers: int,
) -> None:
    plan = blendplan.plan(
        job(seed, requests, known, answers=answers),
        gpu="a100-80g",
        policy=policy,
        overlap=overlap,
        kv_tokens=kv_tokens,
        max_num_seqs=24,
        max_num_batched_tokens=256,
        effort=effort,
    )
    run = blendplan.simulate(plan)
    predicted = plan.metadata["predicted"]
    assert run.steps == predicted["steps"]
    assert run.preemptions == predicted["preemptions"]
    assert run.makespan_s == predicted["makespan_s"]
    assert run.admission.tolist() == list(range(len(plan)))
    for column, name in RUN.items():
        assert plan.column(column).tolist() == getattr(run, name).tolist(), column


@pytest.mark.parametrize("policy", POLICIES.names())
def test_parts_of_several_replicas_too(policy: str) -> None:
    plan = blendplan.plan(
        job(), gpu="a100-80g", policy=policy, replicas=3, kv_tokens=4_800, max_num_seqs=32
    )
    for replica in range(3):
        part = plan.part(replica)
        run = blendplan.simulate(part)
        assert run.makespan_s == part.metadata["predicted"]["makespan_s"]
        assert run.admission.tolist() == list(range(len(part)))


def test_requests_given_as_text_too(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    prompts = [f"{'Tell me about ' * (i % 7)}{i}" for i in range(90)]
    path.write_text("".join(f'{{"prompt": "{text}", "max_tokens": 40}}\n' for text in prompts))
    plan = blendplan.plan(blendplan.read_requests(path), gpu="l4", kv_tokens=1_024)
    run = blendplan.simulate(plan)
    assert run.makespan_s == plan.metadata["predicted"]["makespan_s"]
    assert run.finish_s.tolist() == plan.column("finish_s").tolist()
