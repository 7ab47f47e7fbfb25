"""Mixtures of public traces: the same every time, shares as asked, and sound sums of their runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.mixture_recipes import DRAWN, GIVEN, MODELS, Part, Recipe, recipe, recipes
from benchmarks.mixture_results import Runs
from benchmarks.mixture_runs import PLAIN, kv_use, noisy, quality, run_mixture
from benchmarks.mixture_sets import lines_of, mixture
from benchmarks.mixture_sources import SOURCES, TEXTS, WITH_HEADS
from benchmarks.mixture_tables import changes, losses, missing_time, tables
from benchmarks.mixtures import missing, tasks

from blendplan.errors import BlendplanError
from blendplan.lengths.predicted import OUTCOMES, Lengths
from blendplan.requests.in_memory import requests_from_lists
from blendplan.requests.read import read_requests
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import optimal_sharing
from tests.support.trace_data import TRACES, needs_traces

Row = dict[str, Any]


def test_recipes_are_many_and_their_halves_alike() -> None:
    drawn = recipes()
    assert [one.number for one in drawn] == list(range(DRAWN))
    assert [one.number for one in recipes("given")] == list(GIVEN)
    tune, report = recipes("tune"), recipes("report")
    assert [one.number for one in tune] == list(range(0, DRAWN, 2))
    assert [(one.gpu, one.model) for one in tune] == [(one.gpu, one.model) for one in report]
    assert {one.model for one in tune} == set(MODELS)
    for one in drawn:
        names = [part.source for part in one.parts]
        assert 2 <= len(names) == len(set(names)) <= 5
        assert set(names) <= set(SOURCES)
    with_heads = [any(part.source in WITH_HEADS for part in one.parts) for one in drawn]
    assert 0.3 < np.mean(with_heads) < 0.7
    assert recipe(5) == recipe(5) != recipe(7)


def test_a_number_without_a_mixture_is_refused() -> None:
    with pytest.raises(BlendplanError, match="no mixture 57; give 0 to 31, or 100 to 103"):
        recipe(57)


def test_thinning_keeps_the_shares() -> None:
    whole = Recipe(1, (Part("sharegpt", 9_000), Part("bwb", 3_000)))
    assert [part.count for part in whole.thinned(4).parts] == [2_250, 750]
    assert [part.count for part in whole.thinned(100).parts] == [1_125, 375]
    few = Recipe(1, (Part("sharegpt", 90), Part("bwb", 30)))
    assert few.thinned(4) == few


@needs_traces
def test_the_same_number_gives_the_same_requests_in_the_shares_asked_for() -> None:
    of = recipe(5).thinned(8)
    first, again = mixture(of, TRACES), mixture(of, TRACES)
    assert np.array_equal(first.requests.token_ids, again.requests.token_ids)
    assert np.array_equal(first.requests.output_tokens, again.requests.output_tokens)
    assert first.requests.ids.equals(again.requests.ids)
    assert np.bincount(first.part).tolist() == [part.count for part in of.parts]
    # In random order: all sources are in any hundred requests.
    assert len(np.unique(first.part[:100])) == len(of.parts)


@needs_traces
def test_words_are_kept_and_lengths_are_not_in_the_bodies() -> None:
    parts = (Part("classify", 100, chat=True), Part("sharegpt", 100), Part("mmlu", 100))
    mixed = mixture(Recipe(3, parts), TRACES)
    bodies = mixed.requests.bodies
    assert bodies is not None
    for body, part in zip(bodies.to_pylist(), mixed.part.tolist(), strict=True):
        assert (body is None) == (parts[part].source == "sharegpt")
        if body is not None:
            inner = json.loads(body)
            assert "output_tokens" not in inner
            assert ("messages" in inner["body"]) == parts[part].chat


@needs_traces
def test_a_written_mixture_is_read_as_it_was(tmp_path: Path) -> None:
    parts = (Part("chat", 50, capped=True, chat=True), Part("azure_code", 50, capped=True))
    mixed = mixture(Recipe(3, parts), TRACES)
    path = tmp_path / "mixture.jsonl"
    lines = lines_of(mixed.requests)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    read = read_requests(path)
    for name in ("token_ids", "offsets", "output_tokens", "max_tokens"):
        assert np.array_equal(getattr(read, name), getattr(mixed.requests, name)), name
    assert read.ids.equals(mixed.requests.ids)
    assert (read.max_tokens >= read.output_tokens).all()


@needs_traces
@pytest.mark.parametrize("source", ["classify", "mmlu", "gsm8k", "sharegpt"])
def test_no_prompt_of_an_earlier_job_is_in_this_one(source: str) -> None:
    of = Recipe(3, (Part(source, 3_000, TEXTS.get(source, ())),))
    today, earlier = (mixture(of, TRACES, earlier=past).requests for past in (False, True))
    prompts = {today.prompt(row).tobytes() for row in range(len(today))}
    shared = [earlier.prompt(row).tobytes() in prompts for row in range(len(earlier))]
    assert len(earlier) > 100
    assert not any(shared)


@needs_traces
def test_agents_share_their_histories() -> None:
    of = Recipe(3, (Part("mooncake_conversation", 200),))
    assert optimal_sharing(build_tree(mixture(of, TRACES).requests)) > 0.4


@needs_traces
def test_a_run_has_a_row_for_each_policy() -> None:
    place = {"overlap": 1.0, "policies": ["dfs", "blend"], "thin": 100}
    rows = list(run_mixture(5, TRACES, knowledge="sample", **place))  # type: ignore[arg-type]
    assert [row["policy"] for row in rows] == ["dfs", "blend"]
    for row in rows:
        assert 0 < row["share"] <= 1
        assert 0 < row["kv_use"] <= 1
        assert row["mixture"] == 5 and row["half"] == "report"
        assert 0 <= row["lengths"]["under_p50"] <= row["lengths"]["under_p90"] <= 1
    json.dumps(rows)


def test_noise_is_of_the_stated_size_and_under_the_cap() -> None:
    requests = requests_from_lists(
        [[1]] * 4_000, output_tokens=[100] * 4_000, max_tokens=[None] * 2_000 + [150] * 2_000
    )
    logarithm = np.log(noisy(requests, "noise").mean[:2_000] / 100)
    assert logarithm.std() == pytest.approx(1.0, abs=0.05)
    assert logarithm.mean() == pytest.approx(0.0, abs=0.05)
    stated = noisy(requests, "misstated")
    assert np.array_equal(stated.p50, stated.p90)
    assert stated.mean[2_000:].max() == 150


def test_quality_counts_half_of_the_ties_and_only_unseen_requests() -> None:
    requests = requests_from_lists([[1]] * 5, output_tokens=[1, 1, 2, 9, 100])
    outcomes = np.repeat([[2], [2], [2], [2], [100]], OUTCOMES, axis=1)
    lengths = Lengths.predicted(outcomes, [1, 1, 1, 1, 100], [5, 5, 5, 5, 100])
    rest = np.array([True, True, True, True, False])
    found = quality(lengths, requests, rest)
    assert found["total"] == pytest.approx(108 / 113)
    assert found["under_p50"] == pytest.approx(0.25)
    assert found["under_p90"] == pytest.approx(0.75)
    assert found["mean_absolute"] == pytest.approx((1 + 1 + 0 + 7) / 4)


def test_kv_use_is_that_of_the_middle_half() -> None:
    class Run:
        makespan_s = 8.0
        series = {  # noqa: RUF012
            "end_s": np.array([1.0, 4.0, 5.0, 8.0]),
            "kv_tokens": np.array([0.0, 10.0, 20.0, 30.0]),
        }

    # From 2 s to 6 s: two seconds of 10 tokens, one of 20, one of 30.
    assert kv_use(Run()) == pytest.approx(17.5)  # type: ignore[arg-type]


def row(mixture: int, knowledge: str, policy: str, makespan_s: float, **more: Any) -> Row:
    return {
        "mixture": mixture,
        "overlap": 1.0,
        "thin": 1,
        "effort": 1,
        "seed": 0,
        "knowledge": knowledge,
        "policy": policy,
        "makespan_s": makespan_s,
        "share": 90.0 / makespan_s,
        "kv_use": 0.5,
        "density": more.pop("density", 1.0),
    } | more


MADE_UP = [
    *(row(0, "any", name, time) for name, time in zip(PLAIN, (120.0, 110.0, 100.0), strict=True)),
    *(row(2, "any", name, 100.0, density=5.0) for name in PLAIN),
    row(0, "known", "blend", 95.0, lengths={"total": 1.0}),
    row(2, "known", "blend", 96.0, lengths={"total": 1.0}),
    row(
        0,
        "sample",
        "blend",
        100.4,
        lengths={"total": 0.9, "under_p50": 0.4, "under_p90": 0.8, "mean_absolute": 5.0,
                 "mean_tokens": 10.0},
    ),
    row(2, "sample", "blend", 102.0, lengths={"total": 1.2}),
    row(0, "sample", "blendserve", 80.0, lengths={"total": 0.9}),
    row(2, "sample", "blendserve", 125.0, lengths={"total": 1.2}),
]  # fmt: skip


def test_the_tables_compare_makespans() -> None:
    runs = Runs(MADE_UP)
    known = runs.compared(1.0, ("sample", "blend"), [("known", "blend")])
    assert known == {(0, 0): 95.0 / 100.4, (2, 0): 96.0 / 102.0}
    best = runs.compared(1.0, ("sample", "blend"), [("any", name) for name in PLAIN])
    assert best == {(0, 0): 100.0 / 100.4, (2, 0): 100.0 / 102.0}
    # 0.4 % slower is within what is allowed.
    assert losses(best) == [(2, 0)]
    text = tables(MADE_UP)
    lines = {tuple(line.split()) for line in text.splitlines()}
    assert ("sample", "1", "2", "98.8", "%", "98.0", "%", "(2)", "1:", "2", "-1.2", "%") in lines
    near = ("sample", "1", "0.5", "to", "2", "1", "125.0", "%", "125.0", "%", "(0)", "0")
    elsewhere = ("sample", "1", "elsewhere", "1", "80.0", "%", "80.0", "%", "(2)", "1")
    assert {near, elsewhere} <= lines


def test_seeds_are_entries_of_their_own_beside_what_has_no_seed() -> None:
    other = row(0, "sample", "blend", 98.0, lengths={"total": 1.0}) | {"seed": 3}
    found = Runs([*MADE_UP, other]).compared(1.0, ("sample", "blend"), [("known", "blend")])
    assert found[0, 3] == 95.0 / 98.0
    assert len(found) == 3
    known = Runs([*MADE_UP, other]).all(1.0, "known", "blend")
    assert list(known) == [(0, 0), (2, 0)]


def test_rows_of_different_sizes_are_not_put_into_one_table() -> None:
    with pytest.raises(BlendplanError, match="rows of thin 1 and effort 1, thin 4 and effort 1;"):
        tables([*MADE_UP, MADE_UP[0] | {"thin": 4}])
    with pytest.raises(BlendplanError, match="no row in the results"):
        tables([])


def test_changes_compare_the_same_mixtures() -> None:
    faster = [one | {"makespan_s": one["makespan_s"] / 1.1} for one in MADE_UP[-2:]]
    slower = row(2, "sample", "blend", 204.0, lengths={"total": 1.2})
    lines = {tuple(line.split()) for line in changes(MADE_UP, [*faster, slower]).splitlines()}
    same = ("110.0", "%")
    assert ("sample", "1", "blendserve", "2", *same, *same, "(0)", *same, "(0)", "none") in lines
    half = ("50.0", "%")
    assert ("sample", "1", "blend", "1", *half, *half, "(2)", *half, "(2)", "2") in lines


def test_missing_time_adds_up() -> None:
    whole = {"compute_s": 60.0, "memory_s": 35.0, "bound_compute_s": 50.0, "bound_memory_s": 32.0}
    counts: Row = {
        "prefill_tokens": 900,
        "least_prefill_tokens": 500,
        "token_s": 0.01,
        "tail_s": 10.0,
    }
    counts |= {"steps": 30, "bound_steps": 20, "bound_s": 82.0, "lengths": {"total": 1.0}}
    table = missing_time(Runs([row(0, "known", "blend", 100.0, **whole, **counts)]))
    # 18 s: 400 tokens too many, 6 s of other compute, 3 s of reads, 5 s of what is left.
    expected = ["known", "1", "1", "18.0", "4.0", "6.0", "3.0", "5.0", "10.0", "1.50"]
    assert table[1] == [expected]


def test_a_later_row_stands_for_an_earlier_one() -> None:
    runs = Runs([*MADE_UP, row(0, "known", "blend", 90.0, lengths={"total": 1.0})])
    found = runs.get((0, 0), 1.0, "known", "blend")
    assert found is not None
    assert found["makespan_s"] == 90.0


def test_what_a_file_has_is_not_run_again() -> None:
    policies = ["dfs", "blendserve", "blend"]
    wanted = list(tasks([0], [1.0], ["known", "sample"], policies, thin=1, effort=1))
    assert [(one["knowledge"], one["policies"]) for one in wanted] == [
        ("any", ["dfs"]),
        ("known", ["blendserve", "blend"]),
        ("sample", ["blendserve", "blend"]),
    ]
    left = missing(wanted, MADE_UP)
    assert [(one["knowledge"], one["policies"]) for one in left] == [("known", ["blendserve"])]
    seeded = list(tasks([0], [1.0], ["known", "sample"], policies, seeds=(0, 1), thin=1, effort=1))
    kinds = [(one["knowledge"], one["seed"]) for one in seeded]
    assert kinds == [("any", 0), ("known", 0), ("sample", 0), ("sample", 1)]
