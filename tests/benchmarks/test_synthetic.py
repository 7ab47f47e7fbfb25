"""Synthetic workloads: density and sharing as given, by the measure of the real tree."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.synth import command
from benchmarks.synthetic.mixture import SYSTEM_TOKENS, Family, measure
from benchmarks.synthetic.pools import load_pool
from benchmarks.synthetic.prompts import write_prompts
from benchmarks.synthetic.rows import Rows, plain_rows
from benchmarks.synthetic.workloads import PAPER_TRACES, Recipe, mix, paper_trace, synthesize
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.cost.datasheet import datasheet_cost
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.tree.annotate import annotate
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import optimal_sharing
from tests.support.trace_folder import SUBJECTS, write_traces

COSTS = datasheet_cost(model_spec("llama-3.1-8b"), gpu_spec("a100-80g"))
MIXED = Recipe("burstgpt", "bwb", density=1.3, sharing=0.3)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_traces(tmp_path_factory.mktemp("traces"))


def measured(requests: Requests) -> tuple[float, float]:
    """Density and sharing of the real prefix tree."""
    tree = build_tree(requests)
    prompts, outputs = requests.prompt_tokens, requests.output_tokens
    compute_s, memory_s = COSTS.demand(prompts, outputs)
    totals = annotate(tree, prompts, compute_s, memory_s, output_tokens=outputs.astype(np.float64))
    return float(totals.density[0]), optimal_sharing(tree)


@settings(max_examples=30)
@given(
    density=st.floats(1.0, 2.0),
    sharing=st.floats(0.15, 0.4),
    requests=st.integers(8_000, 12_000),
    seed=st.integers(0, 99),
)
def test_the_tree_has_the_given_density_and_sharing(
    traces: Path, density: float, sharing: float, requests: int, seed: int
) -> None:
    recipe = Recipe("burstgpt", "bwb", density, sharing)
    made = synthesize(recipe, traces, requests=requests, seed=seed)
    assert len(made) == requests
    assert measured(made) == pytest.approx((density, sharing), rel=0.02)


@pytest.mark.parametrize("memory", ["openvid", "openvid-clips"])
def test_a_few_long_outputs_hit_the_density_too(traces: Path, memory: str) -> None:
    requests = synthesize(Recipe("burstgpt", memory, 1.4, 0.3), traces, requests=40_000)
    assert measured(requests) == pytest.approx((1.4, 0.3), rel=0.02)
    long = requests.output_tokens[requests.output_tokens > 1_000]
    assert long.mean() == pytest.approx(16_000, rel=0.1)


def test_a_mixture_says_what_its_tree_will_measure(traces: Path) -> None:
    mixture = mix(MIXED, traces, requests=5_000, seed=3)
    assert measured(write_prompts(mixture, 3)) == pytest.approx(
        (mixture.density, mixture.sharing), rel=0.002
    )
    assert sum(mixture.counts.values()) == len(mixture) == 5_000


@pytest.mark.parametrize("name", PAPER_TRACES)
def test_the_papers_workloads_from_the_real_traces(name: str) -> None:
    folder = os.environ.get("BLENDPLAN_DATA")
    if not folder:
        pytest.skip("BLENDPLAN_DATA does not name a folder with the traces")
    recipe = PAPER_TRACES[name]
    requests = paper_trace(name, folder, requests=20_000)
    assert measured(requests) == pytest.approx((recipe.density, recipe.sharing), rel=0.02)


def test_the_same_seed_gives_the_same_requests_and_another_seed_others(traces: Path) -> None:
    first, again, other = (
        synthesize(MIXED, traces, requests=1_000, seed=seed) for seed in (5, 5, 6)
    )
    assert first.ids.equals(again.ids)
    assert np.array_equal(first.token_ids, again.token_ids)
    assert np.array_equal(first.output_tokens, again.output_tokens)
    assert not np.array_equal(first.token_ids[:1000], other.token_ids[:1000])
    assert not first.ids.equals(other.ids)


def test_sources_share_only_within_themselves(traces: Path) -> None:
    mixture = mix(MIXED, traces, requests=2_000)
    requests = write_prompts(mixture)
    systems: dict[str, tuple[int, ...]] = {}
    for row, name in enumerate(requests.ids.to_pylist()):
        source = name.rsplit("-", 1)[0]
        start = tuple(requests.prompt(row)[:SYSTEM_TOKENS].tolist())
        assert systems.setdefault(source, start) == start
    assert len({start[0] for start in systems.values()}) == len(mixture.families) == 3


def test_prompts_have_their_group_prefix_and_lengths(traces: Path) -> None:
    rows = Rows(
        own_tokens=np.array([3, 1, 4, 2], np.int32),
        output_tokens=np.array([7, 8, 9, 10], np.int32),
        group=np.array([1, -1, 0, 1], np.int32),
        group_tokens=np.array([5, 2], np.int32),
    )
    family = Family("made-up", rows)
    requests = write_prompts(measure([family], COSTS), seed=1)
    by_id = {name: row for row, name in enumerate(requests.ids.to_pylist())}
    order = [by_id[f"made-up-{number}"] for number in range(4)]
    lengths = [SYSTEM_TOKENS + tokens for tokens in (2 + 3, 1, 5 + 4, 2 + 2)]
    assert requests.prompt_tokens[order].tolist() == lengths == family.prompt_tokens.tolist()
    assert requests.output_tokens[order].tolist() == [7, 8, 9, 10]
    first, last = requests.prompt(order[0]), requests.prompt(order[3])
    assert np.array_equal(first[: SYSTEM_TOKENS + 2], last[: SYSTEM_TOKENS + 2])
    other = requests.prompt(order[2])
    assert not np.array_equal(
        first[SYSTEM_TOKENS : SYSTEM_TOKENS + 2], other[SYSTEM_TOKENS : SYSTEM_TOKENS + 2]
    )


def test_a_trace_uses_every_row_before_any_row_again(traces: Path) -> None:
    rows = pq.read_table(traces / "bwb_lengths.parquet")
    pairs = list(
        zip(rows["prompt_tokens"].to_pylist(), rows["output_tokens"].to_pylist(), strict=True)
    )
    drawn = load_pool("bwb", traces).draw(2 * len(pairs), np.random.default_rng(0))
    got = list(zip(drawn.own_tokens.tolist(), drawn.output_tokens.tolist(), strict=True))
    assert sorted(got[: len(pairs)]) == sorted(got[len(pairs) :]) == sorted(pairs)
    assert got[: len(pairs)] != pairs


def test_mmlu_has_a_prefix_for_each_subject_and_answers_in_a_letter(traces: Path) -> None:
    rows = load_pool("mmlu", traces).draw(150, np.random.default_rng(0))
    assert rows.group_tokens.tolist() == list(SUBJECTS.values())
    assert set(rows.prefix_tokens.tolist()) == set(SUBJECTS.values())
    assert set(rows.output_tokens.tolist()) == {2}


@pytest.mark.parametrize(("name", "density"), [("openvid", 0.05), ("openvid-clips", 0.09)])
@pytest.mark.parametrize("count", [40, 1000])
def test_openvid_outputs_have_the_published_mean(
    traces: Path, name: str, density: float, count: int
) -> None:
    rows = load_pool(name, traces).draw(count, np.random.default_rng(0))
    assert rows.output_tokens.mean() == pytest.approx(16_000, rel=0.01)
    whole = plain_rows(rows.own_tokens, rows.output_tokens)
    compute_s, memory_s = COSTS.demand(whole.own_tokens, whole.output_tokens)
    assert compute_s.sum() / memory_s.sum() == pytest.approx(density, rel=0.1)


def test_wildchat_is_near_the_papers_table() -> None:
    rows = load_pool("wildchat", Path()).draw(20_000, np.random.default_rng(0))
    mixture = measure([Family("wildchat", rows)], COSTS)
    assert mixture.density == pytest.approx(2.13, rel=0.1)
    assert mixture.sharing == pytest.approx(0.19, rel=0.1)


def test_any_parquet_file_with_lengths_is_a_trace(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"prompt_tokens": [9, 0, 5], "output_tokens": [2, 3, 0]}), path)
    requests = synthesize(Recipe(str(path), None), traces, requests=4)
    assert requests.prompt_tokens.tolist() == [SYSTEM_TOKENS + 9] * 4  # zeros are left out
    assert requests.ids.to_pylist()[0].startswith("mine-")


@pytest.mark.parametrize(
    ("recipe", "parts"),
    [
        (replace(MIXED, compute="burst-gpt"), ["'burst-gpt'", "burstgpt"]),
        (replace(MIXED, compute="azure-code"), ["no trace file", "azure_llm_2023_code.parquet"]),
        (replace(MIXED, density=500.0), ["density 500", "bwb", "in between"]),
        (replace(MIXED, sharing=0.01), ["sharing 0.01", "mmlu", "in between"]),
        (replace(MIXED, density=None), ["'bwb'", "both or neither"]),
        (replace(MIXED, memory=None), ["1.3", "both or neither"]),
        (replace(MIXED, density=float("nan")), ["density nan", "above 0"]),
        (replace(MIXED, sharing=1.0), ["sharing 1.0", "between 0 and 1"]),
    ],
)
def test_impossible_recipes_are_told_in_one_line(
    traces: Path, recipe: Recipe, parts: list[str]
) -> None:
    with pytest.raises(BlendplanError) as raised:
        synthesize(recipe, traces, requests=1_000)
    for part in parts:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"prompt_tokens": [3]}, "no column 'output_tokens'"),
        ({"prompt_tokens": [3], "output_tokens": [1.5]}, "integer"),
        ({"prompt_tokens": [3, None], "output_tokens": [1, 1]}, "integer"),
        ({"prompt_tokens": [0], "output_tokens": [1]}, "no row"),
    ],
)
def test_a_trace_without_lengths_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], part: str
) -> None:
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(BlendplanError, match=part):
        load_pool(str(path), tmp_path)
    path.write_bytes(b"not parquet at all")
    with pytest.raises(BlendplanError, match="cannot be read"):
        load_pool(str(path), tmp_path)


def test_the_command_writes_a_request_file(traces: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.parquet"
    arguments = ["--compute", "burstgpt", "--memory", "bwb", "--density", "1.3"]
    arguments += ["--sharing", "0.3", "--requests", "3000", "--seed", "4", "--json"]
    result = CliRunner().invoke(command, [*arguments, "--traces", str(traces), "-o", str(path)])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    expected = synthesize(MIXED, traces, requests=3_000, seed=4)
    written = read_requests(path)
    assert np.array_equal(written.token_ids, expected.token_ids)
    assert np.array_equal(written.output_tokens, expected.output_tokens)
    assert written.ids.equals(expected.ids)
    assert answer["requests"] == sum(answer["sources"].values()) == 3_000
    assert (answer["density"], answer["prefix_sharing"]["optimal"]) == pytest.approx(
        (1.3, 0.3), rel=0.02
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "TRACE"),
        (["trace1", "--compute", "bwb"], "TRACE"),
        (["trace1", "--density", "1"], "leave out"),
        (["trace7"], "did you mean"),
    ],
)
def test_the_command_refuses_unclear_recipes(
    tmp_path: Path, arguments: list[str], part: str
) -> None:
    path = tmp_path / "made.parquet"
    result = CliRunner().invoke(command, [*arguments, "-o", str(path), "--traces", str(tmp_path)])
    assert result.exit_code == 2
    assert part in result.stderr
    assert not path.exists()
