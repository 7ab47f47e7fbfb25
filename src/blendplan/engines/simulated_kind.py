"""The simulated engine as one of the registry; nothing of it is imported before it is started."""

from typing import TYPE_CHECKING

from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import Launch, Session

if TYPE_CHECKING:
    from blendplan.engines.simulated import SimulatedEngine
    from blendplan.planfile.plan import Plan


def simulated_engine(
    plan: "Plan", session: Session, *, log_steps: bool = False
) -> "SimulatedEngine":
    """The engine that a plan was made for, simulated.

    A request generates the output length that it states, else the predicted one.
    """
    from blendplan.engines.simulated import SimulatedEngine
    from blendplan.planfile.rerun import machine_of, workload_of

    target = machine_of(plan)
    return SimulatedEngine(
        plan,
        session,
        workload_of(plan),
        target.limits,
        target.table,
        layout=target.layout,
        max_model_len=target.max_model_len,
        log_steps=log_steps,
    )


def _start(plan: "Plan | None", launch: Launch, session: Session) -> "SimulatedEngine":
    assert plan is not None, "the simulated engine needs a plan"
    return simulated_engine(plan, session, log_steps=launch.log_steps)


SIMULATED = EngineKind(
    title="the simulated engine",
    summary="simulates the steps of the engine that was planned for, without a GPU",
    start=_start,
    needs_results=False,
    needs_plan=True,
    loads_model=False,
    takes_arguments=False,
)
