"""`KeptEngine`: one engine for several runs, as long as all of them would start it alike."""

from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from blendplan.engines.kind import EngineKind
from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import Engine, EngineDiedError, Launch, Session

if TYPE_CHECKING:
    from blendplan.planfile.plan import Plan


class KeptEngine:
    """Starts engines of a kind, and lets one that has run a plan to its end run the next.

    Each run begins with an empty prefix cache, as on an engine that has just started. CUDA graphs
    are the engine's own choice, since those that a plan asks for are another for each plan. An
    engine is replaced that died, was left in the middle of a run, or would be started otherwise.

    Args:
        kind: of the engines; where they are not `reusable`, each run starts one.

    Attributes:
        starts: how many were started.
    """

    def __init__(self, kind: EngineKind) -> None:
        self._kind = kind
        self._launch: Launch | None = None
        self._engine: EngineProcess | None = None
        self.starts = 0

    def __enter__(self) -> "KeptEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def kind(self) -> EngineKind:
        """As the one given, for runs on the kept engine."""
        return replace(self._kind, start=self._start)

    def close(self) -> None:
        """Stop the engine."""
        if self._engine is not None:
            self._engine.kept = False
            self._engine.close()
            self._engine = None

    def _start(self, plan: "Plan | None", launch: Launch, session: Session) -> Engine:
        launch = replace(launch, log=None, graphs={})
        if not self._kind.reusable or plan is None:
            return self._kind.start(plan, launch, session)
        if self._engine is not None and self._engine.idle and launch == self._launch:
            try:
                self._engine.next(plan, session)
                return self._engine
            except EngineDiedError:
                pass  # another one is started
        self.close()
        self.starts += 1
        engine = self._kind.start(plan, launch, session)
        assert isinstance(engine, EngineProcess)
        engine.kept = True
        self._engine, self._launch = engine, launch
        return engine
