"""`Replica`: what runs in a Ray actor, an ordinary engine of a replay."""

import platform
import time
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import Capacity, Engine, EngineDiedError, Launch, Report, Session
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.replaying.fleet import Turn, take_turn

# How long an engine that simulates steps goes on without news.
_QUIET_S = 0.2

Outcome = Capacity | Report | EngineDiedError | BlendplanError


@dataclass(frozen=True)
class Part:
    """What an actor starts its engine with.

    Attributes:
        number: of the replica.
        kind: of the engine.
        metadata: of the plan of this replica, whose table is that of all.
        launch: how to start the engine.
    """

    number: int
    kind: EngineKind
    metadata: dict[str, Any]
    launch: Launch


class Replica:
    """An engine for one replica.

    What goes wrong is given back, not raised: it is for the run to say, in its words.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def here(self) -> str:
        """The name of the machine, once there is one."""
        return platform.node()

    def start(self, table: pa.Table, part: Part, session: Session) -> Outcome:
        """Start an engine, another one after a death."""
        self.close()
        try:
            self._engine = part.kind.start(Plan(table, part.metadata), _on_this_node(part), session)
        except (EngineDiedError, BlendplanError) as error:
            return error
        return self._engine.capacity

    def turn(self, turn: Turn, until_s: float) -> Outcome:
        """A turn of the engine.

        Args:
            turn: what it is told.
            until_s: one with a clock of its own goes on until there is news, or until then.
        """
        assert self._engine is not None
        begun = time.monotonic()
        try:
            report = take_turn(self._engine, turn)
            while (
                report.clock_s is not None
                and report.clock_s < until_s
                and not _is_news(report)
                and time.monotonic() - begun < _QUIET_S
            ):
                report.add(self._engine.serve([]))
        except EngineDiedError as death:
            return death
        return report

    def close(self) -> None:
        """Stop the engine."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            engine.close()


def _is_news(report: Report) -> bool:
    return bool(report.answers or report.wanted or report.remarks) or bool(report.idle)


def _on_this_node(part: Part) -> Launch:
    """The launch with a log of its own, in a place that this node has."""
    log = part.launch.log
    if log is None or not log.parent.is_dir():
        return replace(part.launch, log=None)
    return replace(part.launch, log=log.with_name(f"{log.stem}-{part.number}{log.suffix}"))
