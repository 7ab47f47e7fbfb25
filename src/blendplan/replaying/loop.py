"""The replay loop: requests to engines that ask for them, answers to disk.

Which request goes next is the business of the policy inside each engine. The loop sends what an
engine is about to want, tries again what failed, starts an engine again that died, moves requests
between the replicas of a run, and writes. It does not know which engine it drives, nor where.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from blendplan.engines.protocol import Capacity, EngineDiedError, Move, Report, Session
from blendplan.errors import BlendplanError
from blendplan.replaying.balance import LOOKS, Balance, Transfer
from blendplan.replaying.fleet import Fleet, Turn
from blendplan.replaying.intake import Intake
from blendplan.replaying.job import Job
from blendplan.replaying.shares import Shares
from blendplan.replaying.station import Station
from blendplan.replaying.stop import Stop
from blendplan.replaying.tally import Tally
from blendplan.replaying.writer import ResultsWriter

# Deaths without a single finished request in between, after which an engine is hopeless.
_MOST_DEATHS_IN_A_ROW = 8

SessionOf = Callable[[NDArray[np.int64] | None, Sequence[int], Sequence[int], float], Session]


class ReplayLoop:
    """One session of a run, on one engine or several.

    A request that fails is tried again ``retries`` times; an engine that dies is started again
    and everything that ran on it counts one failure. Those that an engine's death would cost
    their last attempt get it alone, so that a request that kills engines takes no other with it;
    and they stay with the replica that they killed, so that they do not kill the others.

    Args:
        fleet: starts engines and gives them turns.
        shares: which replica runs what.
        session_of: what is left for a replica: (its rows, None where it is the only one; rows that
            go before all others; rows that run one by one; clock of the run in seconds).
        intake: writes down what engines report.
        tally: counts.
        stop: asked between reports whether to end.
        remark: called with a line on anything that the user should know.
        started: called when an engine has started for the first time.
        progress: called after each report.
    """

    def __init__(
        self,
        fleet: Fleet,
        shares: Shares,
        session_of: SessionOf,
        intake: Intake,
        tally: Tally,
        stop: Stop,
        *,
        remark: Callable[[str], None],
        started: Callable[[int, Capacity], None],
        progress: Callable[[Tally], None],
    ) -> None:
        self._fleet = fleet
        self._shares = shares
        self._session_of = session_of
        self._intake = intake
        self._tally = tally
        self._stop = stop
        self._remark = remark
        self._started = started
        self._progress = progress
        self._balance = Balance(shares)
        self.stations = [Station(replica) for replica in range(len(shares.waiting))]
        self._stopping = False
        self._clock_s = 0.0
        self._waited_s = 0.0
        self._looked_s = 0.0
        self._look_every_s = shares.demand.together_s(*shares.total_s.tolist()) / (
            LOOKS * len(self.stations)
        )

    def run(self) -> None:
        """Run until every request has a line, or until asked to stop.

        Raises:
            BlendplanError: an engine refuses to start, or none can be kept alive.
        """
        try:
            for station in self.stations:
                self._ask_for_engine(station)
            while self._tally.left and not self._has_stopped():
                if self._stop.asked and not self._stopping:
                    self._stopping = True
                    for station in self.stations:
                        station.turn.stop = True
                event = self._fleet.wait()
                if event is not None:
                    self._happened(self.stations[event.replica], event.what)
                if len(self.stations) > 1 and not self._stopping:
                    self._even_out()
                self._begin_turns()
                if len(self.stations) > 1:
                    self._tally.replicas = sum(one.capacity is not None for one in self.stations)
        finally:
            for station in self.stations:
                station.works(self._clock_s, self._waited_s)
            self._fleet.close()

    def _happened(self, station: Station, what: Capacity | Report | EngineDiedError) -> None:
        station.in_turn = False
        if isinstance(what, EngineDiedError):
            self._bury(station, what)
        elif isinstance(what, Report):
            self._take(station, what)
            self._progress(self._tally)
        else:
            self._intake.begin()
            station.capacity = what
            if self._shares.left[station.replica]:
                station.works(self._clock_s, self._waited_s)
            else:
                station.rests(self._clock_s)
            if not station.deaths:
                self._started(station.replica, what)

    def _take(self, station: Station, report: Report) -> None:
        """Write down what happened, and make the next turn ready."""
        replica, shares = station.replica, self._shares
        taken = self._intake.take(replica, report)
        station.clock_s = max(station.clock_s, self._intake.now_s)
        self._clock_s = station.clock_s
        station.idle = bool(report.idle)
        station.learned = report.learned or station.learned
        if report.began:
            shares.began(report.began)
            self._waited_s = max(self._waited_s, station.clock_s)
        if taken.done:
            station.deaths_in_a_row = 0
            station.finished += len(taken.done)
            shares.done(taken.done)
        # What moves before the next turn is wanted by whom it comes to, also if it comes back.
        report.drop_wanted(station.turn.moved)
        mine = [row for row in report.wanted if shares.owns(replica, row)]
        requests, unusable = self._intake.ask(replica, mine)
        shares.sent([request.row for request in requests])
        shares.done(unusable)
        station.turn.requests += taken.again + requests
        station.turn.passed += taken.passed + unusable
        if not shares.left[replica]:
            station.rests(self._clock_s)

    def _begin_turns(self) -> None:
        """Give every engine a turn that has none, and something to do."""
        for station in self.stations:
            if station.capacity is None or station.in_turn:
                continue
            if station.turn or self._shares.left[station.replica]:
                turn, station.turn = station.turn, Turn()
                station.in_turn = True
                self._fleet.begin_turn(station.replica, turn)

    def _has_stopped(self) -> bool:
        """Whether the run was asked to stop, and nothing runs any more."""
        return self._stopping and all(
            station.capacity is None or station.idle or not self._intake.sent_to(station.replica)
            for station in self.stations
        )

    def _even_out(self) -> None:
        """Move requests to replicas that are ahead."""
        up = np.array([station.capacity is not None for station in self.stations])
        hungry = up & (self._shares.waiting == 0)
        look = self._clock_s - self._looked_s >= self._look_every_s
        if not (look or hungry.any()) or not self._shares.waiting.any() or not up.any():
            return
        if look:
            self._looked_s = self._clock_s
        absent = np.array([one.given_up for one in self.stations])
        absent[list(self._fleet.absent())] = True
        busy_s = np.array([station.busy_s for station in self.stations])
        kept = self._shares.places(self._intake.failed)
        for transfer in self._balance.even_out(up, absent, busy_s, hungry_only=not look, kept=kept):
            self._move(transfer)

    def _move(self, transfer: Transfer) -> None:
        donor, recipient = self.stations[transfer.donor], self.stations[transfer.recipient]
        rows = tuple(self._shares.firsts[transfer.places].tolist())
        donor.moved_out += len(rows)
        recipient.moved_in += len(rows)
        donor.turn.add_move(Move(give=rows))
        first, alone = self._intake.failed_of(rows)
        recipient.turn.add_move(
            Move(take=rows, first=tuple(first), alone=tuple(alone), clock_s=self._clock_s)
        )
        recipient.works(self._clock_s, self._waited_s)
        if not self._shares.left[donor.replica]:
            donor.rests(self._clock_s)

    def _bury(self, station: Station, death: EngineDiedError) -> None:
        """Start another engine after one died; what ran on it failed once."""
        replica, had_started = station.replica, station.capacity is not None
        station.capacity = None
        if self._stopping:
            return
        if not had_started:
            self._cannot_start(station, death)
            return
        station.deaths += 1
        station.deaths_in_a_row += 1
        self._shares.done(self._intake.bury(replica, str(death)))
        self._shares.lost(replica)
        if station.deaths_in_a_row >= _MOST_DEATHS_IN_A_ROW:
            self._give_up(
                station,
                f"the engine died {station.deaths_in_a_row} times in a row without finishing a "
                f"request, most recently because {death}",
            )
        elif self._tally.left:
            self._ask_for_engine(station)

    def _cannot_start(self, station: Station, death: EngineDiedError) -> None:
        """The engine of a replica did not come up."""
        if station.deaths:
            self._give_up(station, f"the engine died and cannot be started again: {death}")
        else:
            self._give_up(station, f"the engine did not start: {death}", death)

    def _give_up(self, station: Station, why: str, death: EngineDiedError | None = None) -> None:
        """Do without a replica, unless it is the last."""
        station.given_up = True
        if all(one.given_up for one in self.stations):
            raise death or BlendplanError(why)
        self._remark(f"replica {station.replica} is given up: {why}; the others take its requests")

    def _ask_for_engine(self, station: Station) -> None:
        """Have the engine of a replica started, for what is left to it."""
        replica = station.replica
        station.turn = Turn(stop=self._stopping)
        failed = [row for row in self._intake.failed if self._shares.owns(replica, row)]
        first, alone = self._intake.failed_of(failed)
        clock_s = max(self._clock_s, station.clock_s)
        owned = self._shares.owned_by(replica) if len(self.stations) > 1 else None
        self._fleet.start(replica, self._session_of(owned, first, alone, clock_s))


def session_of(
    job: Job,
    writer: ResultsWriter,
    replan: bool,
    owned: NDArray[np.int64] | None,
    first: Sequence[int],
    alone: Sequence[int],
    clock_s: float,
) -> Session:
    """What is left of a run that has written so much.

    Args:
        job: what is run.
        writer: knows what is done.
        owned: rows of first answers that are the replica's; None where there is only one.
        first, alone, replan, clock_s: as of `Session`.
    """
    left = ~writer.done
    if owned is not None:
        left &= np.isin(job.rows.first_rows, owned)
    in_order = job.order[left[job.order]]
    return Session(
        left=np.flatnonzero(left),
        requests=in_order[job.rows.answer[in_order] == 0],
        ended=writer.output_tokens.copy(),
        first=tuple(first),
        alone=tuple(alone),
        replan=replan,
        shared=owned is not None,
        clock_s=clock_s,
        stock=job.stock,
    )
