"""`Station`: where one replica of a run stands."""

from dataclasses import dataclass, field

from blendplan.engines.protocol import Capacity
from blendplan.replaying.fleet import Turn


@dataclass
class Station:
    """One replica, as the loop sees it.

    Attributes:
        replica: its number.
        capacity: of its engine; None while it has none.
        in_turn: whether its engine has a turn.
        turn: what it is told next.
        idle: whether its engine said that nothing runs.
        clock_s: of its own engine, or since the run began.
        begun_s: that when it began to work.
        idle_since_s: that when it ran out of requests; None while it has any.
        idle_s: seconds that it had none while it had an engine.
        kept_waiting_s: of those, the ones in which another replica had requests that waited.
        deaths: deaths of its engines; ``deaths_in_a_row`` without a finished request in between.
        given_up: whether no engine is started for it any more.
        finished, moved_in, moved_out: requests.
        learned: what was learned of output lengths.
    """

    replica: int
    capacity: Capacity | None = None
    in_turn: bool = False
    turn: Turn = field(default_factory=Turn)
    idle: bool = False
    clock_s: float = 0.0
    begun_s: float | None = None
    idle_since_s: float | None = None
    idle_s: float = 0.0
    kept_waiting_s: float = 0.0
    deaths: int = 0
    deaths_in_a_row: int = 0
    given_up: bool = False
    finished: int = 0
    moved_in: int = 0
    moved_out: int = 0
    learned: dict[str, object] | None = None

    @property
    def busy_s(self) -> float:
        """Seconds that it has worked."""
        if self.begun_s is None:
            return 0.0
        idle_now_s = 0.0 if self.idle_since_s is None else self.clock_s - self.idle_since_s
        return max(0.0, self.clock_s - self.begun_s - self.idle_s - max(0.0, idle_now_s))

    def rests(self, clock_s: float) -> None:
        """It has nothing to do from now on."""
        if self.idle_since_s is None:
            self.idle_since_s = max(self.clock_s, clock_s)

    def works(self, clock_s: float, waited_s: float) -> None:
        """It has something to do again, or the run is over.

        Args:
            clock_s: of the run.
            waited_s: when a request was last waiting at another replica.
        """
        if self.begun_s is None:
            self.begun_s = clock_s
        if self.idle_since_s is not None:
            self.idle_s += max(0.0, clock_s - self.idle_since_s)
            self.kept_waiting_s += max(0.0, min(clock_s, waited_s) - self.idle_since_s)
            self.idle_since_s = None
        self.clock_s = max(self.clock_s, clock_s)

    def as_dict(self) -> dict[str, object]:
        """What it did, as JSON values."""
        return {
            "replica": self.replica,
            "finished": self.finished,
            "moved_in": self.moved_in,
            "moved_out": self.moved_out,
            "busy_s": self.busy_s,
            "idle_s": self.idle_s,
            "kept_waiting_s": self.kept_waiting_s,
            "restarts": self.deaths,
            "replan": self.learned,
        }
