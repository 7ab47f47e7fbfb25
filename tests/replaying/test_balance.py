"""Which requests go to which replica: whole families of the donor's mix, so that all end even."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendplan.planfile.rows import Work
from blendplan.replaying.balance import Balance, divide
from blendplan.replaying.shares import Demand, Parts, Shares
from blendplan.requests.in_memory import requests_from_lists


def shares(
    owner: list[int], *, replicas: int, seed: int = 0, families: int = 40, overlap: float = 1.0
) -> Shares:
    """Requests of random demand in families of neighbours."""
    from blendplan.planfile.rows import work_of_requests

    rng, count = np.random.default_rng(seed), len(owner)
    work: Work = work_of_requests(requests_from_lists([[1, 2]] * count))
    demand = Demand(
        rng.uniform(0.1, 2.0, count),
        rng.uniform(0.1, 2.0, count),
        np.sort(rng.integers(0, families, count)),
        overlap,
    )
    parts = Parts(np.arange(count), np.array(owner, dtype=np.int32), demand)
    return Shares.divided(work, parts, np.zeros(count, dtype=bool), replicas)


def left_s(of: Shares) -> np.ndarray:
    """What each replica has left, from scratch."""
    demand = of.demand
    mine = [of.owner == replica for replica in range(len(of.left))]
    return np.array(
        [
            demand.together_s(demand.compute_s[rows].sum(), demand.memory_s[rows].sum())
            for rows in mine
        ]
    )


@settings(max_examples=60)
@given(
    count=st.integers(1, 300),
    planned=st.integers(1, 6),
    replicas=st.integers(1, 8),
    seed=st.integers(0, 1000),
    overlap=st.sampled_from([1.0, 2.0, np.inf]),
)
def test_everything_is_somebodys_and_evenly(
    count: int, planned: int, replicas: int, seed: int, overlap: float
) -> None:
    owner = np.random.default_rng(seed).integers(0, planned, count).tolist()
    of = shares(owner, replicas=replicas, seed=seed, overlap=overlap)
    divide(of, replicas)
    assert ((of.owner >= 0) & (of.owner < replicas)).all()
    assert of.left.tolist() == np.bincount(of.owner, minlength=replicas).tolist()
    assert of.waiting.tolist() == of.left.tolist()
    whole = left_s(of)
    for replica in range(replicas):
        pair = of.left_s[replica]
        assert of.demand.together_s(*np.maximum(pair, 0)) == pytest.approx(whole[replica], abs=1e-6)
    if count >= 40 * replicas:
        assert whole.max() <= 1.15 * whole.mean()


def test_a_slice_has_the_mix_of_its_donor_and_whole_families() -> None:
    of = shares([0] * 4000, replicas=2, families=400)
    up = np.array([True, True])
    [transfer] = Balance(of).even_out(up, ~up, np.zeros(2), hungry_only=False)
    assert (transfer.donor, transfer.recipient) == (0, 1)
    demand = of.demand
    moved = np.isin(np.arange(4000), transfer.places)
    for family in range(400):
        mine = moved[demand.family == family]
        assert mine.all() or not mine.any()
    ratios = [
        demand.compute_s[rows].sum() / demand.memory_s[rows].sum() for rows in (moved, ~moved)
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.03)
    assert left_s(of)[0] == pytest.approx(left_s(of)[1], rel=0.03)


def test_families_that_have_begun_stay_while_there_are_others() -> None:
    of = shares([0] * 400, replicas=2, families=20)
    begun = of.demand.family % 2 == 0
    of.sent([int(np.flatnonzero(of.demand.family == family)[0]) for family in range(0, 20, 2)])
    up = np.array([True, True])
    balance = Balance(of)
    of.demand.compute_s[begun] *= 0.2
    [transfer] = balance.even_out(up, ~up, np.zeros(2), hungry_only=False)
    fresh = transfer.places[~begun[transfer.places]]
    assert len(fresh) >= 0.9 * len(transfer.places)


def test_the_last_ones_move_one_by_one_and_never_back_and_forth() -> None:
    of = shares([0, 0, 1], replicas=2)
    of.sent([0, 2])
    of.began([0, 2])
    of.done([2])
    up = np.array([True, True])
    balance = Balance(of)
    [transfer] = balance.even_out(up, ~up, np.ones(2), hungry_only=True)
    assert transfer.places.tolist() == [1]
    of.sent([1])
    assert balance.even_out(up, ~up, np.ones(2), hungry_only=True) == []


def test_those_without_an_engine_give_everything_and_others_keep_suspects() -> None:
    of = shares([0, 0, 0, 1, 1, 1], replicas=3)
    up = np.array([False, True, True])
    absent = np.array([True, False, False])
    Balance(of).even_out(up, absent, np.zeros(3), hungry_only=False, kept=[0, 1, 2])
    assert of.waiting[0] == 0
    of = shares([0, 0, 0, 1], replicas=2)
    both = np.array([True, True])
    of.sent([3])
    of.began([3])
    of.done([3])
    for transfer in Balance(of).even_out(both, ~both, np.ones(2), hungry_only=True, kept=[0, 1]):
        assert set(transfer.places.tolist()) <= {2}
