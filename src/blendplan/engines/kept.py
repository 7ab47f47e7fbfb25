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
    engine is replaced that died, was left in the middle of a run, or would be started otherwise;
    one that schedules asynchronously by itself need not be asked to.

    Args:
        kind: of the engines; where they are not `reusable`, each run starts one.
        step_tokens: ``max_num_batched_tokens`` of the engines; plans for fewer run within theirs.
            Without it, an engine has that of its plan.

    Attributes:
        starts: how many were started.
    """

    def __init__(self, kind: EngineKind, step_tokens: int | None = None) -> None:
        self._kind = kind
        self._step_tokens = step_tokens
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
        own = plan.limits.max_num_batched_tokens
        if self._step_tokens is not None and own < self._step_tokens and launch.limits is not None:
            wider = replace(launch.limits, max_num_batched_tokens=self._step_tokens)
            launch = replace(launch, limits=wider)
            session = replace(session, step_tokens=own)
        if self._engine is not None and self._engine.idle and self._is_as(launch):
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

    def _is_as(self, launch: Launch) -> bool:
        """Whether the engine is as one that is started like this."""
        assert self._engine is not None and self._launch is not None
        before = self._launch
        if before.limits is not None and launch.limits is not None:
            own = replace(before.limits, kv_tokens=launch.limits.kv_tokens)  # nobody asks for these
            if self._engine.capacity.limits.async_scheduling:
                own = replace(own, async_scheduling=launch.limits.async_scheduling)
            before = replace(before, limits=own)
        return launch == before
