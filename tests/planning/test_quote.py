"""`quote`: offers are what their plans come to; what fits, what is best, what is refused."""

from typing import Any

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.planning.planner import plan
from blendplan.planning.quote import Quote, quote
from blendplan.planning.quoting.offer import Offer
from blendplan.requests.columns import Requests
from blendplan.requests.in_memory import requests_from_lists

LISTS: dict[str, Any] = {
    "gpu": ["l4", "a10g"],
    "replicas": [1, 2],
    "max_num_seqs": [16, 64],
}


def job(requests: int = 160, known: bool = True) -> Requests:
    rng = np.random.default_rng(5)
    prefixes = rng.integers(0, 1000, (6, 64)).tolist()
    prompts = [
        [*prefixes[k % 6], *rng.integers(0, 1000, 1 + k % 40).tolist()] for k in range(requests)
    ]
    outputs = [1 + (k * 37) % 29 + (300 if k % 12 == 0 else 0) for k in range(requests)]
    return requests_from_lists(prompts, output_tokens=outputs if known else None)


def planned(requests: Requests, offer: Offer, **options: Any) -> dict[str, Any]:
    return plan(requests, **offer.settings, **options).metadata


def test_specs_are_quoted_as_names_are() -> None:
    how: dict[str, Any] = {"prices": {"l4": 1.0, "a10g": 2.0}, "effort": 0, "processes": 1}
    specs = quote(
        job(), gpu=[gpu_spec("l4"), "a10g"], model=model_spec("llama-3.1-8b"), tp=[1, 2], **how
    )
    names = quote(job(), gpu=["l4", "a10g"], model="llama-3.1-8b", tp=[1, 2], **how)
    assert [offer.makespan_s for offer in specs.offers] == [
        offer.makespan_s for offer in names.offers
    ]
    assert (specs.front, specs.winner) == (names.front, names.winner)


@pytest.mark.parametrize("known", [True, False])
def test_every_offer_is_what_the_plan_of_its_settings_predicts(known: bool) -> None:
    requests = job(known=known)
    lists = LISTS | {"max_num_seqs": [16, 64] if known else [64]}
    how: dict[str, Any] = {"effort": 0, "replan": False}
    found = quote(requests, **lists, processes=1, **how)
    assert len(found.offers) == (8 if known else 4)
    for offer in found.offers:
        metadata = planned(requests, offer, **how)
        predicted = metadata["predicted"]
        assert offer.whole
        assert offer.makespan_s == predicted["makespan_s"]
        assert offer.outlook.as_metadata() == predicted["makespan_quantiles_s"]
        assert offer.turnaround_s == predicted["turnaround_s"]
        assert offer.bound_ratio == pytest.approx(metadata["bound_ratio"])
        assert offer.throughput_tokens_per_s == pytest.approx(predicted["throughput_tokens_per_s"])
        assert offer.gpus == offer.settings["tp"] * offer.settings["replicas"]
        assert offer.gpu_hours == pytest.approx(offer.gpus * offer.makespan_s / 3600)
        shares = offer.shares
        assert shares.compute + shares.bandwidth + shares.small_steps == pytest.approx(1.0)
        assert 0 <= shares.kv_cache <= 1
        assert 0 <= shares.running <= 1
        assert 0 < shares.prompts < 1


def facts(found: Quote) -> list[tuple[Any, ...]]:
    return [
        (*offer.settings.values(), offer.makespan_s, offer.outlook.quantile(0.9), offer.whole)
        for offer in found.offers
    ]


def test_processes_change_nothing() -> None:
    lists = LISTS | {"max_num_seqs": [16]}
    one, two = (quote(job(), **lists, processes=n, policy="dfs") for n in (1, 2))
    assert facts(one) == facts(two)
    assert (one.front, one.winner) == (two.front, two.winner)


def test_a_part_is_enough_for_what_is_not_best() -> None:
    requests = job(4000)
    lists: dict[str, Any] = {"gpu": "l4", "kv_dtype": ["auto", "fp8"], "max_num_seqs": [8, 16, 64]}
    thin = quote(requests, **lists, simulate=2000, processes=1, policy="dfs")
    whole = quote(requests, **lists, processes=1, policy="dfs")
    assert all(offer.whole for offer in whole.offers)
    exact = {tuple(offer.settings.values()): offer.makespan_s for offer in whole.offers}
    estimates = [offer for offer in thin.offers if not offer.whole]
    assert estimates
    for offer in thin.offers:
        expected = exact[tuple(offer.settings.values())]
        assert offer.makespan_s == pytest.approx(expected, rel=0.0 if offer.whole else 0.15)
        assert offer.simulated == 4000 or 1900 <= offer.simulated <= 2100
    assert all(thin.offers[one].whole for one in thin.front)
    assert thin.winner is not None
    best = thin.offers[thin.winner]
    assert best.whole
    assert best.settings == whole.offers[whole.winner or 0].settings


def test_cheapest_first_and_the_winner_is_the_cheapest_in_time() -> None:
    prices = {"l4": 1.0, "a10g": 3.0}
    found = quote(job(), **LISTS, prices=prices, processes=1, policy="dfs")
    costs = [found.cost(offer) or 0.0 for offer in found.offers]
    assert costs == sorted(costs)
    assert found.winner == 0
    for offer, cost in zip(found.offers, costs, strict=True):
        assert cost == pytest.approx(prices[offer.gpu] * offer.gpu_hours)
    slowest, fastest = (chosen(offer.makespan_s for offer in found.offers) for chosen in (max, min))
    limit = (slowest + fastest) / 2
    hurried = quote(job(), **LISTS, prices=prices, within_s=limit, processes=1, policy="dfs")
    assert hurried.winner is not None
    in_time = [index for index, offer in enumerate(hurried.offers) if offer.makespan_s <= limit]
    assert hurried.winner == in_time[0]
    assert quote(job(), **LISTS, within_s=fastest / 2, processes=1, policy="dfs").winner is None


def test_without_prices_the_fastest_comes_first() -> None:
    found = quote(job(), **LISTS, processes=1, policy="dfs")
    makespans = [offer.makespan_s for offer in found.offers]
    assert makespans == sorted(makespans)
    assert found.winner == 0
    assert all(found.cost(offer) is None for offer in found.offers)
    hours = [found.offers[one].gpu_hours for one in found.front]
    assert hours == sorted(hours, reverse=True)
    assert min(hours) == min(offer.gpu_hours for offer in found.offers)


def test_a_gpu_without_a_price_is_shown_last_and_said() -> None:
    found = quote(job(), **LISTS, prices={"a10g": 1.0}, processes=1, policy="dfs")
    assert [offer.gpu for offer in found.offers] == ["a10g"] * 4 + ["l4"] * 4
    assert all(found.offers[one].gpu == "a10g" for one in found.front)
    assert any("no price is given for l4" in note for note in found.notes)


def test_a_chance_is_demanded_of_unsure_lengths() -> None:
    requests = job(known=False)
    one = quote(requests, gpu="l4", processes=1, policy="dfs").offers[0]
    limit = one.outlook.quantile(0.7)
    for chance, in_time in ((0.5, True), (0.9, False)):
        found = quote(requests, gpu="l4", processes=1, policy="dfs", within_s=limit, chance=chance)
        assert (found.winner == 0) is in_time


def test_what_does_not_fit_says_by_how_much() -> None:
    found = quote(job(), gpu=["l4", "a100-80g"], model="llama-3.1-70b", tp=[1, 2, 4], processes=1)
    assert {(offer.gpu, offer.gpus) for offer in found.offers} == {("a100-80g", 2), ("a100-80g", 4)}
    assert len(found.offers) + len(found.unfit) == 6
    missing = [one.missing_bytes for one in found.unfit]
    assert missing == sorted(missing)  # type: ignore[type-var]
    for one in found.unfit:
        assert f"{(one.missing_bytes or 0) / 2**30:.1f} GiB" in one.reason


def test_a_cache_too_small_for_a_request_says_by_how_much() -> None:
    long = requests_from_lists([list(range(3000)), [1]], output_tokens=[50, 5])
    with pytest.raises(BlendplanError) as caught:
        quote(long, gpu="l4", kv_tokens=2048, processes=1)
    assert "a request of 3,049 tokens" in str(caught.value)
    assert "GiB more a GPU" in str(caught.value)


def test_launches_that_not_all_gpus_have_are_left_out() -> None:
    """They are as much of the CPU beside a GPU as of the GPU."""
    requests = job()
    alone = quote(requests, gpu="h100-80g", policy="fcfs")
    beside = quote(requests, gpu=["h100-80g", "a100-80g"], policy="fcfs")
    assert not alone.notes
    assert any("known of h100-80g alone, and left out" in note for note in beside.notes)
    assert alone.offers[0].makespan_s == pytest.approx(
        plan(requests, gpu="h100-80g", policy="fcfs").metadata["predicted"]["makespan_s"]
    )
    faster = next(offer for offer in beside.offers if offer.gpu == "h100-80g")
    assert faster.makespan_s < alone.offers[0].makespan_s
    assert faster.settings == alone.offers[0].settings


def test_values_are_taken_once_whatever_they_are_called() -> None:
    found = quote(job(20), gpu=["l4", "L4"], tp=(1, 1), processes=1, policy="fcfs")
    assert len(found.offers) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": []}, "gpu is a list of 0; give at least one value"),
        ({"gpu": ["l4", "l5"]}, "unknown GPU 'l5'"),
        ({"gpu": "l4", "tp": [1, 0]}, "tp is 0"),
        ({"gpu": "l4", "model": "llama-9"}, "unknown model"),
        ({"gpu": "l4", "kv_dtype": "fp9"}, "unknown kv_dtype 'fp9'"),
        ({"gpu": "l4", "within_s": 0}, "within_s is 0.0; give a number above 0"),
        ({"gpu": "l4", "within_s": -3.0}, "within_s is -3.0"),
        ({"gpu": "l4", "chance": 1.5}, "chance is 1.5"),
        ({"gpu": "l4", "prices": {"l5": 1.0}}, "price for an unknown GPU 'l5'"),
        ({"gpu": "l4", "simulate": 0}, "simulate is 0"),
        ({"gpu": "l4", "sed": 1}, "unknown argument of quote() 'sed'"),
        ({"gpu": "l4", "policy": "blnd"}, "unknown policy 'blnd'"),
        ({"gpu": "l4", "tp": range(1, 200), "replicas": range(1, 200)}, "39,601 combinations"),
        ({"gpu": "l4", "model": "llama-3.1-70b"}, "none of the 1 combinations fits"),
    ],
)
def test_bad_arguments_get_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BlendplanError) as caught:
        quote(job(10), **options, processes=1)
    assert said in str(caught.value)
