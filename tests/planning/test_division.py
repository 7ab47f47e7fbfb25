"""Dividing requests among data-parallel replicas: equal work, equal density, prefixes together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendplan.errors import BlendplanError
from blendplan.planning.division import assign_replicas
from blendplan.requests.columns import Requests, select
from blendplan.requests.in_memory import requests_from_lists
from blendplan.tree.build import build_tree
from blendplan.tree.sharing import prefix_tokens_unique

PROMPTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=60)


def loads(part: NDArray[np.int32], demand: NDArray[np.float64], replicas: int) -> list[float]:
    """Each part's demand in units of a fair share."""
    return [float(demand[part == k].sum() / demand.sum() * replicas) for k in range(replicas)]


def recomputed(requests: Requests, part: NDArray[np.int32], replicas: int) -> int:
    """Prompt tokens that must be computed more often than in one piece."""
    parts = [select(requests, np.flatnonzero(part == k)) for k in range(replicas)]
    whole = prefix_tokens_unique(build_tree(requests))
    return sum(prefix_tokens_unique(build_tree(one)) for one in parts) - whole


@settings(max_examples=100)
@given(prompts=PROMPTS, replicas=st.integers(1, 7), seed=st.integers(0, 99))
def test_no_part_has_much_more_than_its_share(
    prompts: list[list[int]], replicas: int, seed: int
) -> None:
    tree = build_tree(requests_from_lists(prompts))
    rng = np.random.default_rng(seed)
    compute_s, memory_s = rng.exponential(1.0, (2, len(prompts)))
    part = assign_replicas(tree, compute_s, memory_s, replicas)
    assert part.dtype == np.int32
    assert part.min() >= 0
    assert part.max() < replicas
    for demand in (compute_s, memory_s):
        largest = demand.max() / demand.sum() * replicas
        # Coarse for a few random requests; many small ones are divided evenly, see below.
        assert max(loads(part, demand, replicas)) <= 2.0 + 2.0 * largest
    assert len(set(part.tolist())) == min(replicas, len(prompts))


@settings(max_examples=30)
@given(replicas=st.integers(2, 16), seed=st.integers(0, 99))
def test_many_small_requests_of_two_kinds_are_divided_evenly(replicas: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 4000
    kind = rng.random(n) < 0.05
    prompts = [[int(k), *rng.integers(0, 50, 6).tolist()] for k in kind]
    compute_s = np.where(kind, 0.1, 1.0) * rng.uniform(0.5, 1.5, n)
    memory_s = np.where(kind, 15.0, 0.1) * rng.uniform(0.5, 1.5, n)
    part = assign_replicas(build_tree(requests_from_lists(prompts)), compute_s, memory_s, replicas)
    for demand in (compute_s, memory_s):
        assert max(loads(part, demand, replicas)) < 1.05
        assert min(loads(part, demand, replicas)) > 0.95


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_common_prefixes_stay_together(replicas: int) -> None:
    rng = np.random.default_rng(0)
    prefixes = rng.integers(0, 1000, (64, 200)).tolist()
    prompts = [[*prefixes[k % 64], *rng.integers(0, 1000, 20).tolist()] for k in range(3200)]
    requests = requests_from_lists(prompts)
    ones = np.ones(len(requests))
    part = assign_replicas(build_tree(requests), ones, ones, replicas)
    assert max(loads(part, ones, replicas)) < 1.01
    shareable = 3200 * 200 - 64 * 200
    assert recomputed(requests, part, replicas) < 0.01 * shareable
    # Dealt out without regard to prefixes, every part would compute each of them.
    dealt = (np.arange(3200) // 64 % replicas).astype(np.int32)
    assert recomputed(requests, dealt, replicas) >= (replicas - 1) * 64 * 200


def test_one_prefix_for_all_is_cut_into_as_many_pieces_as_there_are_parts() -> None:
    prompts = [[7] * 500 + [k] for k in range(1000)]
    requests = requests_from_lists(prompts)
    ones = np.ones(1000)
    part = assign_replicas(build_tree(requests), ones, ones, 4)
    assert np.bincount(part).tolist() == [250] * 4
    assert recomputed(requests, part, 4) == 3 * 500


def test_identical_prompts_can_be_divided() -> None:
    requests = requests_from_lists([[1, 2, 3]] * 90)
    ones = np.ones(90)
    part = assign_replicas(build_tree(requests), ones, ones, 3)
    assert np.bincount(part).tolist() == [30, 30, 30]


def test_the_division_is_deterministic() -> None:
    prompts = [[k % 5, k % 7, k] for k in range(300)]
    tree = build_tree(requests_from_lists(prompts))
    compute_s, memory_s = np.random.default_rng(0).exponential(1.0, (2, 300))
    first, second = (assign_replicas(tree, compute_s, memory_s, 5) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("replicas", [0, -2])
def test_there_is_at_least_one_replica(replicas: int) -> None:
    tree = build_tree(requests_from_lists([[1]]))
    with pytest.raises(BlendplanError, match=f"{replicas} replicas"):
        assign_replicas(tree, np.ones(1), np.ones(1), replicas)


def test_more_replicas_than_requests_leave_some_without() -> None:
    tree = build_tree(requests_from_lists([[1], [2]]))
    part = assign_replicas(tree, np.ones(2), np.ones(2), 5)
    assert len(set(part.tolist())) == 2


def test_requests_without_any_memory_time() -> None:
    tree = build_tree(requests_from_lists([[k] for k in range(40)]))
    part = assign_replicas(tree, np.ones(40), np.zeros(40), 4)
    assert np.bincount(part).tolist() == [10] * 4
