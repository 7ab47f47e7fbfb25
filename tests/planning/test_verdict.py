"""The verdict of a comparison: who wins, or why nobody does."""

from dataclasses import replace

import pytest

from blendplan.planning.compare import circumstances, compare
from blendplan.planning.verdict import Circumstances, reasons, verdict
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from tests.cli.cli_runs import run, write_job

BUSY = Circumstances(
    requests=100_000,
    max_num_seqs=1024,
    needed_kv_tokens=5e7,
    kv_tokens=400_000,
    compute_s=600.0,
    memory_s=400.0,
    overlap=2.0,
    sharing=0.3,
    bound_s=720.0,
)


def test_the_fastest_policy_is_named_with_its_gain_over_the_usual_orders() -> None:
    said = verdict({"fcfs": 1000.0, "dfs": 900.0, "blend": 750.0}, BUSY)
    assert said.order_matters
    assert said.gain == pytest.approx(1000 / 750 - 1)
    assert said.sentences == (
        "blend is fastest: 20.0 % more throughput than dfs, 33.3 % more throughput than fcfs.",
        "blend reaches 96.0 % of what any schedule could.",
    )


def test_without_the_usual_orders_the_slowest_is_the_measure() -> None:
    said = verdict({"random": 1000.0, "blend": 800.0}, BUSY)
    assert "25.0 % more throughput than random" in said.sentences[0]


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (replace(BUSY, requests=50, needed_kv_tokens=3e5), "everything fits at once"),
        (replace(BUSY, compute_s=980.0, memory_s=20.0), "compute dominates: 98.0 %"),
        (replace(BUSY, compute_s=10.0, memory_s=990.0), "memory dominates: 99.0 %"),
        (replace(BUSY, overlap=1.0), "one after the other"),
        (replace(BUSY, sharing=0.01), "no prefix sharing to keep: at best 1.0 %"),
    ],
)
def test_no_difference_comes_with_its_reason(around: Circumstances, words: str) -> None:
    said = verdict({"fcfs": 755.0, "dfs": 750.0}, around)
    assert not said.order_matters
    assert said.sentences[0].startswith("The order makes no difference here: all policies are")
    assert words in said.sentences[0]


def test_further_reasons_follow_the_first() -> None:
    around = replace(BUSY, compute_s=999.0, memory_s=1.0, sharing=0.0)
    said = verdict({"fcfs": 750.0, "dfs": 750.0}, around)
    assert "take the same time, because compute dominates" in said.sentences[0]
    assert said.sentences[1].startswith("Also, there is no prefix sharing")


def test_no_reason_is_made_up() -> None:
    assert reasons(BUSY) == []
    near = verdict({"fcfs": 725.0, "dfs": 724.0}, BUSY)
    assert "as busy as it can be" in near.sentences[0]
    far = verdict({"fcfs": 1000.0, "dfs": 1001.0}, BUSY)
    assert "fcfs reaches 72.0 % of what any schedule could" in far.sentences[0]


def test_requests_that_fit_the_cache_but_not_the_batch_do_not_all_start_together() -> None:
    assert reasons(replace(BUSY, needed_kv_tokens=3e5)) == []


def test_one_policy_alone_compares_with_the_bound_only() -> None:
    said = verdict({"blend": 750.0}, BUSY)
    assert said.sentences == (
        "blend reaches 96.0 % of what any schedule could; compare more policies.",
    )


def test_circumstances_count_shared_prompts_once() -> None:
    shared = list(range(64))
    requests = requests_from_lists([[*shared, 100 + k] for k in range(10)], output_tokens=[5] * 10)
    found = circumstances(compare(requests, policies=["fcfs"], gpu="l4", kv_tokens=1600))
    # 64 shared and 10 own prompt tokens, 4 generated ones each that are cached, half a block each.
    assert found.needed_kv_tokens == 64 + 10 + 10 * 4 + 10 * 8
    assert found.sharing == pytest.approx(1 - 74 / 650)
    assert found.requests == 10


def test_a_job_that_fits_says_so_on_the_command_line(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    job = write_job(tmp_path_factory.mktemp("job") / "job.jsonl")
    result = run("compare", job, "--gpu", "a100-80g", "--policies", "fcfs,dfs")
    assert "everything fits at once: all 60 requests" in " ".join(result.stdout.split())
    assert len(read_requests(job)) == 60
