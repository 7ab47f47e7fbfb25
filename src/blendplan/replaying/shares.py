"""`Shares`: which replica runs which request, and how much work each has left."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendplan.planfile.columns import outcomes_of
from blendplan.planfile.plan import Plan
from blendplan.planfile.rows import Work

WAITING, SENT, BEGAN, DONE = range(4)
# Share of its work that a request which has begun still has, on average.
_BEGUN_LEFT = 0.5
NOBODY = -1


@dataclass(frozen=True)
class Demand:
    """What r requests are expected to take, in depth-first order.

    Attributes:
        compute_s, memory_s: of all answers of a request, shared prefixes divided among those that
            share them; float64 [r].
        family: number of each request's family, in runs; int64 [r].
        overlap: exponent of how the two overlap.
    """

    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]
    family: NDArray[np.int64]
    overlap: float

    def together_s(self, compute_s: float, memory_s: float) -> float:
        """Time of so much work of both kinds, where they are blended."""
        most = max(compute_s, memory_s)
        if most <= 0.0 or np.isinf(self.overlap):
            return most
        shares = (compute_s / most) ** self.overlap + (memory_s / most) ** self.overlap
        return float(most * shares ** (1.0 / self.overlap))


@dataclass(frozen=True)
class Parts:
    """The r requests of a plan, in depth-first order.

    Attributes:
        firsts: row of the first answer of each; int64 [r].
        replica: that it was planned for; int32 [r].
        demand: what each is expected to take.
    """

    firsts: NDArray[np.int64]
    replica: NDArray[np.int32]
    demand: Demand


def parts_of(plan: Plan) -> Parts:
    """The requests of a plan that several engines share.

    Args:
        plan: one of `shared_plans`.
    """
    firsts = np.flatnonzero(plan.column("answer") == 0)
    firsts = firsts[np.argsort(plan.column("depth_first")[firsts], kind="stable")]
    return Parts(firsts, plan.column("replica")[firsts], _demand(plan, firsts))


def _demand(plan: Plan, firsts: NDArray[np.int64]) -> Demand:
    answer = plan.column("answer")
    request = np.cumsum(answer == 0) - 1
    prices = plan.metadata["step_prices"]
    outcomes = outcomes_of(plan.table)
    output = outcomes.mean(axis=1)
    reads = plan.column("prompt_tokens") * output + (outcomes**2).mean(axis=1) / 2
    compute_s = float(prices["token_s"]) * (plan.column("new_prompt_tokens") + output)
    memory_s = float(prices["read_s"]) * reads
    order = request[firsts]
    return Demand(
        np.bincount(request, compute_s)[order],
        np.bincount(request, memory_s)[order],
        plan.column("family")[firsts],
        float(plan.metadata["overlap"]),
    )


class Shares:
    """Who runs which of r requests.

    Requests are named by the row of their first answer outside, and by their place in depth-first
    order in here.

    Args:
        work: the sequences, by requests.
        firsts: rows of first answers in depth-first order; int64 [r].
        owner: replica of each, `NOBODY` for none; int32 [r].
        done: whether each has its line already; bool [r].
        replicas: how many there may be.
        demand: what each request is expected to take.

    Attributes:
        owner: as given, kept up to date.
        state: WAITING, SENT, BEGAN or DONE of each; int8 [r].
        waiting, left: requests of each replica that wait, and that have no line; int64 [replicas].
        left_s, done_s: expected compute and memory seconds of each that are left, and that it has
            done; float64 [replicas, 2].
    """

    def __init__(
        self,
        work: Work,
        firsts: NDArray[np.int64],
        owner: NDArray[np.int32],
        done: NDArray[np.bool_],
        replicas: int,
        demand: Demand,
    ) -> None:
        self.demand = demand
        self.firsts = firsts
        self.owner = owner
        self.state = np.where(done, DONE, WAITING).astype(np.int8)
        self._place = np.full(len(work), -1, dtype=np.int64)
        self._place[firsts] = np.arange(len(firsts))
        self._work_s = np.column_stack([demand.compute_s, demand.memory_s])
        self.total_s = self._work_s[~done].sum(axis=0)
        self.waiting = np.zeros(replicas, dtype=np.int64)
        self.left = np.zeros(replicas, dtype=np.int64)
        self.left_s = np.zeros((replicas, 2))
        self.done_s = np.zeros((replicas, 2))
        for replica in range(replicas):
            mine = np.flatnonzero((owner == replica) & ~done)
            self._count(replica, mine, 1)

    @classmethod
    def divided(
        cls, work: Work, parts: Parts | None, done: NDArray[np.bool_], replicas: int
    ) -> "Shares":
        """Before a run: as planned, where there are enough replicas.

        Args:
            work: the sequences, by requests.
            parts: of the plan; None where all is of one replica.
            done: whether each sequence has its line already; bool [n].
            replicas: how many there may be.
        """
        if parts is None:
            firsts = work.firsts
            nothing = np.zeros(len(firsts))
            demand = Demand(nothing, nothing, np.zeros(len(firsts), dtype=np.int64), 1.0)
            parts = Parts(firsts, np.zeros(len(firsts), dtype=np.int32), demand)
        owner = np.where(parts.replica < replicas, parts.replica, NOBODY).astype(np.int32)
        return cls(work, parts.firsts, owner, done[parts.firsts], replicas, parts.demand)

    def owned_by(self, replica: int) -> NDArray[np.int64]:
        """Rows, of first answers, of a replica that have no line yet; int64."""
        rows: NDArray[np.int64] = self.firsts[(self.owner == replica) & (self.state != DONE)]
        return rows

    def owns(self, replica: int, row: int) -> bool:
        """Whether a request is this replica's."""
        return bool(self.owner[self._place[row]] == replica)

    def owner_of(self, row: int) -> int:
        """The replica that a request is of."""
        return int(self.owner[self._place[row]])

    def sent(self, rows: Iterable[int]) -> None:
        """Their owners have been sent these requests."""
        for place in self.places(rows):
            if self.state[place] == WAITING:
                self.state[place] = SENT
                self.waiting[self.owner[place]] -= 1

    def began(self, rows: Iterable[int]) -> None:
        """These requests have begun."""
        for place in self.places(rows):
            if self.state[place] == SENT:
                self.state[place] = BEGAN
                replica = self.owner[place]
                self.left_s[replica] -= (1.0 - _BEGUN_LEFT) * self._work_s[place]
                self.done_s[replica] += (1.0 - _BEGUN_LEFT) * self._work_s[place]

    def done(self, rows: Iterable[int]) -> None:
        """These requests have their line."""
        for place in self.places(rows):
            state, replica = self.state[place], self.owner[place]
            if state == DONE:
                continue
            share = _BEGUN_LEFT if state == BEGAN else 1.0
            self.left_s[replica] -= share * self._work_s[place]
            self.done_s[replica] += share * self._work_s[place]
            self.left[replica] -= 1
            self.waiting[replica] -= state == WAITING
            self.state[place] = DONE

    def lost(self, replica: int) -> None:
        """The engine of a replica is gone: what was on it waits again."""
        mine = self.owner == replica
        begun = mine & (self.state == BEGAN)
        again = (1.0 - _BEGUN_LEFT) * self._work_s[begun].sum(axis=0)
        self.left_s[replica] += again
        self.done_s[replica] -= again
        back = begun | (mine & (self.state == SENT))
        self.state[back] = WAITING
        self.waiting[replica] += int(np.count_nonzero(back))

    def move(self, places: NDArray[np.int64], to: int) -> None:
        """Waiting requests of one replica, or of nobody, are another's from now on."""
        donor = int(self.owner[places[0]])
        if donor != NOBODY:
            self._count(donor, places, -1)
        self.owner[places] = to
        self._count(to, places, 1)

    def _count(self, replica: int, places: NDArray[np.int64], sign: int) -> None:
        """Requests that wait join a replica or leave it."""
        self.waiting[replica] += sign * len(places)
        self.left[replica] += sign * len(places)
        self.left_s[replica] += sign * self._work_s[places].sum(axis=0)

    def places(self, rows: Iterable[int]) -> list[int]:
        """Places of these requests in depth-first order."""
        return self._place[list(rows)].tolist()
