"""Excerpts: of the right size, even, and like the whole."""

import numpy as np
import pytest
from benchmarks.trace_requests import mmlu_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import blendplan
from blendplan.proving.excerpt import Excerpt, excerpt
from blendplan.requests.columns import Requests, select
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import optimal_sharing
from tests.planfile.test_rerun import job
from tests.support.trace_data import TRACES, needs_traces


def chosen(requests: Requests, most: int) -> Excerpt:
    return excerpt(requests, build_tree(requests), most)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 350))
def test_size_and_evenness(seed: int, count: int, most: int) -> None:
    """Any stretch of the depth-first order has its share, to within what is taken together."""
    requests = job(seed, count)
    tree = build_tree(requests)
    rows = excerpt(requests, tree, most).rows
    assert len(rows) == min(count, most)
    assert (np.diff(rows) > 0).all()
    assert rows.min() >= 0
    assert rows.max() < count
    taken = np.isin(tree.order, rows)
    together = max(1, min(64, most // 64))
    expected = np.linspace(0, len(rows), count + 1)
    seen = np.concatenate([[0], np.cumsum(taken)])
    assert np.abs(seen - expected).max() <= 2 * together + 1


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(20, 200), st.integers(2, 150))
def test_likeness_says_what_is_so(seed: int, count: int, most: int) -> None:
    requests = job(seed, count, known=False)
    found = chosen(requests, most)
    part, likeness = select(requests, found.rows), found.likeness
    assert likeness["requests"] == {"whole": count, "excerpt": len(part)}
    prompts = [len(requests.prompt(row)) for row in range(count)]
    mean = sum(prompts) / count
    assert likeness["prompt_tokens"]["whole"] == pytest.approx(mean)
    of_part = sum(prompts[row] for row in found.rows) / len(part)
    assert likeness["prompt_tokens"]["deviation"] == pytest.approx(of_part / mean - 1)
    stated = [int(n) for n in part.output_tokens if n >= 0]
    if stated:
        assert likeness["output_tokens"]["excerpt"] == pytest.approx(sum(stated) / len(stated))
    else:
        assert likeness["output_tokens"]["deviation"] is None
    capped = float((part.max_tokens >= 0).mean())
    assert likeness["capped"]["excerpt"] == pytest.approx(capped)
    sharing = likeness["prefix_sharing"]
    assert sharing["whole"] == optimal_sharing(build_tree(requests))
    assert sharing["excerpt"] == optimal_sharing(build_tree(part))
    assert 0 <= likeness["kinds"]["deviation"] <= 1


def test_all_are_like_all() -> None:
    requests = job(5, 90)
    found = chosen(requests, 90)
    assert found.rows.tolist() == list(range(90))
    assert found.likeness["kinds"]["deviation"] == 0
    assert found.remarks() == []
    for name in ("prompt_tokens", "output_tokens", "max_tokens", "capped", "prefix_sharing"):
        assert found.likeness[name]["deviation"] == 0


def families(count: int, members: int) -> Requests:
    """Families of requests with a prefix of 300 tokens, in an order that scatters them."""
    rng = np.random.default_rng(0)
    prefixes = rng.integers(0, 50_000, (count, 300))
    family = rng.permutation(np.repeat(np.arange(count), members))
    own = rng.integers(0, 50_000, (len(family), 60))
    prompts = [[*prefixes[one], *own[row]] for row, one in enumerate(family.tolist())]
    return blendplan.requests_from_lists([list(map(int, prompt)) for prompt in prompts])


def test_sharing_survives_where_a_random_choice_loses_it() -> None:
    requests = families(200, 20)
    found = chosen(requests, 1000)
    sharing = found.likeness["prefix_sharing"]
    assert abs(sharing["deviation"]) < 0.06
    rows = np.sort(np.random.default_rng(1).choice(len(requests), 1000, replace=False))
    random = optimal_sharing(build_tree(select(requests, rows)))
    assert random < sharing["whole"] - 2 * abs(sharing["deviation"])


def test_what_differs_is_said() -> None:
    found = chosen(families(30, 40), 3)
    likeness = found.likeness
    said = found.remarks()
    assert any(line.endswith(" % in all") and "can be shared" in line for line in said)
    assert likeness["prefix_sharing"]["deviation"] < -0.05


@needs_traces
def test_an_excerpt_of_exams_is_like_them() -> None:
    """Every subject keeps its share, and most of its sharing."""
    lines = list(mmlu_lines(TRACES))
    requests = blendplan.requests_from_lists(
        [list(line["body"]["prompt"].encode()[:3000:3]) for line in lines]
    )
    found = chosen(requests, 2000)
    assert abs(found.likeness["prefix_sharing"]["deviation"]) < 0.03
    assert abs(found.likeness["prompt_tokens"]["deviation"]) < 0.05
    subjects = [line["custom_id"].split("-")[1] for line in lines]
    whole = {name: subjects.count(name) for name in set(subjects)}
    part = [subjects[row] for row in found.rows]
    share = len(part) / len(subjects)
    assert all(abs(part.count(name) - share * number) <= 40 for name, number in whole.items())
