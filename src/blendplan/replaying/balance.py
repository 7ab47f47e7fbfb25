"""`Balance`: which requests go from one replica to another while a run goes on.

Predictions are wrong, so parts are not fixed. How long each replica will still take is what it has
left, at the pace that it was seen to have. One that is ahead takes from the one furthest behind:
now and then where they differ by much, and at once where it has nothing left to begin. It takes
whole families that nobody has begun, spread over the other's densities, so that both keep their mix
of compute and memory work; only at the end parts of families, down to a single request.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blendplan.kernels.kernel import kernel
from blendplan.replaying.shares import NOBODY, WAITING, Shares

# Work that a replica's pace is believed to be that of all for, as a share of a part.
_PRIOR = 0.25
# Replicas that differ by less than this share of what the slower one has left, or of a whole part,
# are even.
_EVEN = 0.05
_LEAST_GAP = 0.01
# A look at all replicas, in shares of the run.
LOOKS = 100
# A family is cut into pieces of this share of what is to be moved where it is no longer kept whole.
_PIECE = 0.25


class Transfer(NamedTuple):
    """Requests that change their replica, by their places in depth-first order."""

    donor: int
    recipient: int
    places: NDArray[np.int64]


class Balance:
    """Decides on transfers.

    Args:
        shares: who runs what; changed by what is decided.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def even_out(
        self,
        up: NDArray[np.bool_],
        absent: NDArray[np.bool_],
        busy_s: NDArray[np.float64],
        *,
        hungry_only: bool,
        kept: Sequence[int] = (),
    ) -> list[Transfer]:
        """Transfers that make replicas end at the same time, done in the shares.

        Args:
            up: whether each replica has an engine, so that it can take; bool [k].
            absent: whether it has none and will not soon, so that it gives all it has; bool [k].
            busy_s: seconds that each has worked; float64 [k].
            hungry_only: whether only those take that have nothing waiting.
            kept: places of requests that stay where they are unless that is absent.
        """
        shares = self._shares
        made: list[Transfer] = []
        slow = self._slowness(busy_s)
        rest: set[int] = set()
        while True:
            left_s = slow * self._left_s()
            takers = up & (shares.waiting == 0) if hungry_only else up.copy()
            takers[list(rest)] = False
            givers = shares.waiting > 0
            if not takers.any() or not givers.any():
                return made
            taker = int(np.argmin(np.where(takers, left_s, np.inf)))
            behind = np.where(givers, np.where(absent, np.inf, left_s), -1.0)
            behind[taker] = -1.0
            giver = int(np.argmax(behind))
            if behind[giver] <= 0.0:
                return made
            wanted = self._wanted_s(absent, left_s, slow, giver, taker, hungry=hungry_only)
            places = self._choose(giver, wanted / slow[giver], () if absent[giver] else kept)
            if wanted <= 0.0 or not len(places):
                rest.add(taker)
                continue
            shares.move(places, taker)
            made.append(Transfer(giver, taker, places))
            if not absent[giver]:
                rest.add(taker)

    def _left_s(self) -> NDArray[np.float64]:
        """What each replica has left, at the planned pace."""
        shares = self._shares
        pairs = np.maximum(shares.left_s, 0.0)
        return np.array([shares.demand.together_s(*pair) for pair in pairs.tolist()])

    def _slowness(self, busy_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds that each replica takes for a planned one."""
        shares = self._shares
        part = shares.demand.together_s(*shares.total_s.tolist()) / len(busy_s)
        done = [shares.demand.together_s(*pair) for pair in np.maximum(shares.done_s, 0.0).tolist()]
        done_s, prior = np.array(done), max(_PRIOR * part, 1e-9)
        of_all = (busy_s.sum() + prior) / (done_s.sum() + prior)
        slow: NDArray[np.float64] = (busy_s + prior * of_all) / (done_s + prior)
        return slow

    def _wanted_s(
        self,
        absent: NDArray[np.bool_],
        left_s: NDArray[np.float64],
        slow: NDArray[np.float64],
        giver: int,
        taker: int,
        *,
        hungry: bool,
    ) -> float:
        """Seconds of the giver's time that the taker is to take off it."""
        present = int(np.count_nonzero(~absent))
        level = float(left_s.sum()) / present
        below = max(0.0, level - float(left_s[taker])) * slow[giver] / slow[taker]
        if absent[giver]:
            return max(below, float(left_s[giver]) / present)
        gap = float(left_s[giver] - left_s[taker])
        even = gap * slow[giver] / (slow[giver] + slow[taker])
        if hungry:
            return even
        total_s = self._shares.demand.together_s(*self._shares.total_s.tolist()) / present
        if gap < max(_EVEN * float(left_s[giver]), _LEAST_GAP * total_s):
            return 0.0
        return min(even, below)

    def _choose(self, giver: int, wanted_s: float, kept: Sequence[int]) -> NDArray[np.int64]:
        """Waiting requests of a replica, of about so much work and of its mix; their places."""
        shares, demand = self._shares, self._shares.demand
        if wanted_s <= 0.0:
            return np.empty(0, dtype=np.int64)
        waits = (shares.owner == giver) & (shares.state == WAITING)
        if len(kept):
            waits[list(kept)] = False
        places = np.flatnonzero(waits)
        work_s = demand.compute_s[places] + demand.memory_s[places]
        # In the units of the sum of both kinds of work.
        left_s = float(self._left_s()[giver])
        wanted = wanted_s / max(left_s, 1e-12) * float(np.maximum(shares.left_s[giver], 0).sum())
        if not len(places) or wanted >= work_s.sum():
            return places
        mine = (shares.owner == giver) & (shares.state != WAITING)
        begun = np.isin(demand.family[places], demand.family[mine])
        fresh, rest = places[~begun], places[begun]
        chosen = self._slice(fresh, wanted, whole=True)
        missing = wanted - float((demand.compute_s[chosen] + demand.memory_s[chosen]).sum())
        if missing > 0.1 * wanted:
            others = np.sort(np.concatenate([np.setdiff1d(fresh, chosen), rest]))
            chosen = np.concatenate([chosen, self._slice(others, missing, whole=False)])
        if not len(chosen):
            # A single one, unless the other would then be the one behind.
            least = int(np.argmin(work_s))
            chosen = places[[least]] if work_s[least] <= 2 * wanted else chosen
        return np.sort(chosen)

    def _slice(self, places: NDArray[np.int64], wanted: float, *, whole: bool) -> NDArray[np.int64]:
        """Of these requests, about so much work, evenly from all densities."""
        if not len(places):
            return places
        demand = self._shares.demand
        compute_s, memory_s = demand.compute_s[places], demand.memory_s[places]
        work_s = compute_s + memory_s
        starts = _pieces(demand.family[places], work_s, np.inf if whole else _PIECE * wanted)
        unit_compute = np.add.reduceat(compute_s, starts)
        unit_s = np.add.reduceat(work_s, starts)
        order = np.argsort(-unit_compute / np.maximum(unit_s, 1e-12), kind="stable")
        total = float(unit_s.sum())
        taken = np.zeros(len(starts), dtype=np.bool_)
        taken[order] = _evenly(unit_s[order], min(1.0, wanted / total))
        return places[np.repeat(taken, np.diff(starts, append=len(places)))]


def divide(shares: Shares, replicas: int) -> None:
    """Give every request that is nobody's to one of the first replicas, and even them out.

    Args:
        shares: before the run.
        replicas: how many will run at first.
    """
    nobodys = np.flatnonzero(shares.owner == NOBODY)
    if len(nobodys):
        shares.move(nobodys, 0)
    up = np.arange(len(shares.waiting)) < replicas
    busy_s = np.zeros(len(up))
    balance = Balance(shares)
    for _ in range(replicas):
        if not balance.even_out(up, ~up, busy_s, hungry_only=False):
            return


@kernel
def _pieces(
    family: NDArray[np.int64], work_s: NDArray[np.float64], most: float
) -> NDArray[np.int64]:
    """Where pieces begin: runs of a family, of no more than so much work or of one request."""
    starts = np.empty(len(family), dtype=np.int64)
    count = 0
    work = 0.0
    for place in range(len(family)):
        new = place == 0 or family[place] != family[place - 1]
        if new or work + work_s[place] > most:
            starts[count] = place
            count += 1
            work = 0.0
        work += work_s[place]
    return starts[:count].copy()


@kernel
def _evenly(work_s: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Every so manieth, so that at any place about this share of the work has been taken."""
    taken = np.zeros(len(work_s), dtype=np.bool_)
    sum_s = 0.0
    taken_s = 0.0
    for place in range(len(work_s)):
        sum_s += work_s[place]
        if taken_s + work_s[place] / 2 <= share * sum_s:
            taken[place] = True
            taken_s += work_s[place]
    return taken
