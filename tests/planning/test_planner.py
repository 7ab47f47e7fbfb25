"""From requests to plans and comparisons, end to end on small request sets."""

import math
from dataclasses import replace
from itertools import pairwise
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

OVERLAPS = (1.0, 2.0, math.inf)
ENGINE: dict[str, Any] = {"kv_tokens": 8192, "max_num_seqs": 16, "max_num_batched_tokens": 256}


def job(n: int = 60) -> Requests:
    """Short answers with common prefixes, chat and long generations, with known lengths."""
    rng = np.random.default_rng(3)
    stems = [rng.integers(0, 9000, 200).tolist() for _ in range(2)]
    prompts, outputs = [], []
    for row in range(n):
        tail = rng.integers(0, 9000, rng.integers(5, 80)).tolist()
        prompts.append(stems[row % 2] + tail if row % 3 else tail)
        outputs.append(int(rng.integers(1, 6) if row % 3 else rng.integers(20, 600)))
    return requests_from_lists(prompts, output_tokens=outputs)


def refusal(**options: Any) -> str:
    with pytest.raises(BlendplanError) as refused:
        plan(options.pop("requests", None) or job(4), **{"gpu": "a100-80g"} | options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("policy", POLICIES.names())
def test_plan_of_every_policy(policy: str, overlap: float, tmp_path: Path) -> None:
    requests = job()
    made = plan(requests, gpu="a100-80g", policy=policy, overlap=overlap, **ENGINE)
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    found.verify()

    assert sorted(found.column("source_row")) == list(range(60))
    assert found.table["request_id"].to_pylist() == [
        requests.ids[int(row)].as_py() for row in found.column("source_row")
    ]
    told = found.metadata
    assert (told["requests"], told["policy"], told["gpu"]) == (60, policy, "a100-80g")
    assert told["overlap"] == ("inf" if overlap == math.inf else overlap)
    assert 0 < told["bound_ratio"] <= 1
    assert told["bound_s"] == pytest.approx(told["bound_ratio"] * told["predicted"]["makespan_s"])
    sharing = told["prefix_sharing"]
    assert 0 <= sharing["planned"] <= sharing["optimal"] < 1
    predicted = told["predicted"]
    assert predicted["prompt_tokens"] == requests.prompt_tokens.sum()
    assert predicted["output_tokens"] == requests.output_tokens.sum()
    tokens = predicted["prompt_tokens"] + predicted["output_tokens"]
    assert predicted["throughput_tokens_per_s"] == pytest.approx(tokens / predicted["makespan_s"])
    assert predicted["turnaround_s"]["p99"] <= predicted["makespan_s"]
    mixed, decode = told["engine"]["mixed_steps"], told["engine"]["decode_steps"]
    assert sum(mixed.values()) + sum(decode.values()) == predicted["steps"]
    tokens = [int(size) * steps for one in (mixed, decode) for size, steps in one.items()]
    assert sum(tokens) >= predicted["prefill_tokens"]
    assert max(map(int, decode)) <= 16
    for sizes in told["engine"]["graph_sizes"].values():
        assert max(sizes["decode"]) >= max(map(int, decode))
        assert max(sizes["mixed"]) >= max(map(int, mixed))


def test_overlap_shortens_the_run() -> None:
    spans = [
        plan(job(), gpu="a100-80g", policy="fcfs", overlap=q, **ENGINE).metadata["predicted"]
        for q in OVERLAPS
    ]
    assert spans[0]["makespan_s"] > spans[1]["makespan_s"] > spans[2]["makespan_s"]
    # The steps are the same, so is their work.
    assert len({span["steps"] for span in spans}) == 1
    assert len({span["compute_s"] for span in spans}) == 1
    assert spans[0]["makespan_s"] == pytest.approx(spans[0]["compute_s"] + spans[0]["memory_s"])


def test_orders_of_the_queues() -> None:
    requests = job()
    rows = {
        policy: plan(requests, gpu="a100-80g", policy=policy, seed=4, **ENGINE).column("source_row")
        for policy in ("fcfs", "dfs", "random")
    }
    assert rows["fcfs"].tolist() == list(range(60))
    assert rows["random"].tolist() == np.random.default_rng(4).permutation(60).tolist()
    # Depth first: each prefix is one run of consecutive requests.
    heads = [tuple(requests.prompt(int(row))[:200]) for row in rows["dfs"]]
    changes = sum(one != other for one, other in pairwise(heads))
    assert changes == len(set(heads)) - 1
    assert rows["dfs"].tolist() != list(range(60))


def test_seed_and_policy_decide_the_plan() -> None:
    def rows(**options: Any) -> list[int]:
        made = plan(job(), gpu="a100-80g", **ENGINE | options)
        return [int(row) for row in made.column("source_row")]

    assert rows(policy="random", seed=1) == rows(policy="random", seed=1)
    assert rows(policy="random", seed=1) != rows(policy="random", seed=2)
    assert rows(policy="blendserve", seed=1) == rows(policy="blendserve", seed=2)


def test_paper_policy_blends_both_ends() -> None:
    made = plan(job(), gpu="a100-80g", policy="blendserve", **ENGINE)
    density, sides = made.column("density"), made.sides()
    assert 0 < sides.sum() < 60
    assert (
        np.median(density[sides == 0]) > made.metadata["density"] > np.median(density[sides == 1])
    )
    first = set(made.table["side"].slice(0, 8).to_pylist())
    assert first == {"compute", "memory"}


def test_one_request() -> None:
    requests = requests_from_lists([[5, 6, 7]], output_tokens=[4])
    for policy in POLICIES:
        # Prices that grow evenly make the bound exact.
        made = plan(requests, gpu="a100-80g", policy=policy, cost="datasheet")
        made.verify()
        assert made.metadata["prefix_sharing"] == {"planned": 0.0, "optimal": 0.0}
        assert made.metadata["predicted"]["steps"] == 4
        assert made.metadata["bound_ratio"] == pytest.approx(1.0)


def test_identical_requests() -> None:
    requests = requests_from_lists([[7] * 64] * 30, output_tokens=[3] * 30)
    for policy in POLICIES:
        made = plan(requests, gpu="a100-80g", policy=policy, **ENGINE)
        made.verify()
        assert sorted(made.column("source_row")) == list(range(30))
        sharing = made.metadata["prefix_sharing"]
        assert sharing["optimal"] == pytest.approx(29 / 30)
        # All but the last of four blocks can be hit.
        assert sharing["planned"] == pytest.approx(29 / 30 * 3 / 4)


def test_no_requests() -> None:
    none = replace(
        job(1),
        ids=job(1).ids.slice(0, 0),
        source_row=np.empty(0, np.int64),
        token_ids=np.empty(0, np.int32),
        offsets=np.zeros(1, np.int64),
        output_tokens=np.empty(0, np.int32),
        max_tokens=np.empty(0, np.int32),
    )
    for source, name in ((None, "the request set"), (Path("jobs/night.jsonl"), "jobs/night.jsonl")):
        with pytest.raises(BlendplanError, match=f"{name} holds no requests"):
            plan(replace(none, source=source), gpu="a100-80g")
        with pytest.raises(BlendplanError, match=f"{name} holds no requests"):
            compare(replace(none, source=source), gpu="a100-80g", policies=["fcfs"])


def test_impossible_options() -> None:
    assert "unknown policy 'blendserv'; did you mean 'blendserve'" in refusal(policy="blendserv")
    assert "a100-80g" in refusal(gpu="a100-8g")
    assert "llama-3.1-8b" in refusal(model="lama-3.1-8b")
    assert "llama-3.1-70b" in refusal(model="llama-3.1-70b")
    assert "overlap is 0.5; give a number from 1 to inf" in refusal(overlap=0.5)
    assert "max_num_seqs is 0" in refusal(max_num_seqs=0, kv_tokens=64)
    assert "kv_tokens is 3, less than one block" in refusal(kv_tokens=3)
    line = refusal(lengths="oracle")
    assert (
        "unknown length method 'oracle'; give auto, known, prior, sample:FILE, history:FILE" in line
    )
    line = refusal(lengths="sample:/nowhere/results.jsonl")
    assert "'/nowhere/results.jsonl' does not exist" in line and "check the path" in line
    assert "cost model 'guess'; choose from calibrated, datasheet" in refusal(cost="guess")


def test_request_longer_than_the_cache() -> None:
    requests = requests_from_lists([[1] * 10, [2] * 600, [3] * 200], output_tokens=[5, 2, 900])
    line = refusal(requests=requests, kv_tokens=512)
    assert "can never fit the KV cache of 512 tokens, nor can one other;" in line
    assert "line 3 (id '3'): 200 prompt tokens and 900 output tokens" in line
    with pytest.raises(BlendplanError, match="can never fit"):
        compare(requests, gpu="a100-80g", policies=POLICIES.names(), kv_tokens=512)


def test_progress_names_the_stages() -> None:
    seen: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen.append(stage)

    plan(job(), gpu="a100-80g", policy="dfs", progress=progress, **ENGINE)
    assert seen[:3] == ["prefix tree", "output lengths", "sorting by density"]


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_compare(overlap: float) -> None:
    requests = job()
    found = compare(requests, gpu="a100-80g", policies=POLICIES.names(), overlap=overlap, **ENGINE)
    assert list(found.outcomes) == list(POLICIES)
    for name, outcome in found.outcomes.items():
        made = plan(requests, gpu="a100-80g", policy=name, overlap=overlap, **ENGINE)
        assert outcome.run.admission.tolist() == made.column("source_row").tolist()
        assert outcome.run.makespan_s == made.metadata["predicted"]["makespan_s"]
        assert outcome.bound.makespan_s == made.metadata["bound_s"]
        assert 0 < outcome.bound.makespan_s <= outcome.run.makespan_s
        assert outcome.plan_wall_s > 0


def test_compare_in_the_order_asked_for() -> None:
    found = compare(job(), gpu="a100-80g", policies=["dfs", "fcfs"], **ENGINE)
    assert list(found.outcomes) == ["dfs", "fcfs"]
    with pytest.raises(BlendplanError, match="unknown policy 'best'"):
        compare(job(), gpu="a100-80g", policies=["dfs", "best"], **ENGINE)


def test_compare_runs_what_really_happens() -> None:
    """Policies see a prediction, the engine generates the known lengths."""
    requests = job()
    known = compare(requests, gpu="a100-80g", policies=POLICIES.names(), **ENGINE)
    guessed = compare(
        requests, gpu="a100-80g", policies=POLICIES.names(), lengths="prior", **ENGINE
    )
    assert np.array_equal(known.prepared.lengths.mean, requests.output_tokens)
    assert not np.array_equal(guessed.prepared.lengths.mean, requests.output_tokens)
    for name in POLICIES:
        runs = known.outcomes[name].run, guessed.outcomes[name].run
        assert runs[0].output_tokens == runs[1].output_tokens == requests.output_tokens.sum()
        assert guessed.outcomes[name].bound.makespan_s <= runs[1].makespan_s
        if name in ("fcfs", "random", "dfs"):
            assert runs[0].makespan_s == runs[1].makespan_s


@st.composite
def request_sets(draw: st.DrawFn) -> Requests:
    """Few requests, with lengths known, capped or neither."""
    token = st.integers(0, 3)
    stems = draw(st.lists(st.lists(token, min_size=1, max_size=40), min_size=1, max_size=3))
    tail = st.lists(token, max_size=6)
    prompt = st.builds(lambda a, b: a + b, st.sampled_from(stems), tail)
    prompts = draw(st.lists(prompt, min_size=1, max_size=12))
    lengths = st.lists(
        st.one_of(st.none(), st.integers(1, 60)), min_size=len(prompts), max_size=len(prompts)
    )
    return requests_from_lists(prompts, output_tokens=draw(lengths), max_tokens=draw(lengths))


@given(
    request_sets(), st.sampled_from(POLICIES.names()), st.sampled_from(OVERLAPS), st.integers(1, 8)
)
@settings(max_examples=60)
def test_every_plan_verifies(requests: Requests, policy: str, overlap: float, seqs: int) -> None:
    made = plan(
        requests,
        gpu="a100-80g",
        policy=policy,
        overlap=overlap,
        kv_tokens=1024,
        max_num_seqs=seqs,
        max_num_batched_tokens=32,
    )
    assert len(made.verify()) == 5
    rows = made.column("source_row")
    assert sorted(rows) == list(range(len(requests)))
    assert 0 < made.metadata["bound_ratio"] <= 1 + 1e-9
    sharing = made.metadata["prefix_sharing"]
    assert sharing["planned"] <= sharing["optimal"] + 1e-12
    caps = requests.max_tokens[rows]
    mean = made.column("output_tokens_mean")
    assert np.all((caps < 0) | (mean <= caps))
    assert sum(len(table) for _, table in made.batches()) == len(requests)


@pytest.mark.parametrize("policy", ["dfs", "blendserve", "blend"])
def test_replicas_share_the_requests(policy: str, tmp_path: Path) -> None:
    requests = job()
    made = plan(requests, gpu="a100-80g", policy=policy, replicas=3, **ENGINE)
    made.write(tmp_path / "plan.arrow")
    found = Plan.read(tmp_path / "plan.arrow")
    found.verify()
    assert sorted(found.column("source_row")) == list(range(60))
    assert set(found.column("replica")) == {0, 1, 2}
    parts = [found.part(number) for number in range(3)]
    assert sum(map(len, parts)) == 60
    spans = []
    for number, part in enumerate(parts):
        part.verify()
        assert set(part.column("replica")) == {number}
        assert [step for step, _ in part.batches()] == sorted(set(part.column("batch")))
        assert part.live_policy().admit(8192).tolist()
        spans.append(part.metadata["predicted"]["makespan_s"])
    assert found.metadata["predicted"]["makespan_s"] == max(spans)
    assert 0 < found.metadata["bound_ratio"] <= 1
    batches = [(step, rows["replica"].to_pylist()) for step, rows in found.batches()]
    assert all(len(set(replica)) == 1 for _, replica in batches)
    assert len(batches) == sum(len(list(part.batches())) for part in parts)
    for wrong in (-1, 3):
        with pytest.raises(BlendplanError, match=f"no replica {wrong}"):
            found.part(wrong)
    with pytest.raises(BlendplanError, match="3 replicas; take one"):
        found.live_policy()


def test_batches_end_with_a_replica() -> None:
    """Both replicas admit everything in their first step."""
    requests = requests_from_lists([[1] * 9, [2] * 9], output_tokens=[4, 4])
    made = plan(requests, gpu="a100-80g", policy="fcfs", replicas=2, **ENGINE)
    assert [(step, len(rows)) for step, rows in made.batches()] == [(0, 1), (0, 1)]


def test_more_replicas_than_requests() -> None:
    made = plan(job(2), gpu="a100-80g", replicas=5, **ENGINE)
    made.verify()
    assert len(made) == 2
    with pytest.raises(BlendplanError, match="replica"):
        plan(job(2), gpu="a100-80g", replicas=0, **ENGINE)
