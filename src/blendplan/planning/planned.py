"""`plan_prepared`: the plan of one engine, from requests that are prepared."""

from blendplan.cost.machine import Machine
from blendplan.planfile.assemble import assemble_plan
from blendplan.planfile.plan import Plan
from blendplan.planning.describe import describe
from blendplan.planning.prepare import Prepared, Progress
from blendplan.planning.run_policy import Prediction, run_policy
from blendplan.planning.tail import Tail
from blendplan.policy.state_machine import Parameters


def plan_prepared(
    prepared: Prepared,
    target: Machine,
    policy: str,
    *,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    tail: Tail | None = None,
    progress: Progress | None = None,
    parameters: Parameters | None = None,
    replica: int = 0,
) -> tuple[Plan, Prediction]:
    """Simulate a policy, and put down its admissions as a plan.

    Args:
        prepared: the requests.
        target: the machine.
        policy, seed, effort, replan, tail, progress: as of `plan`.
        parameters: of the policy, where they are chosen already.
        replica: number of the engine among several.

    Returns:
        The plan, and what it comes to.
    """
    prediction = run_policy(
        prepared,
        target,
        policy,
        seed=seed,
        effort=effort,
        replan=replan,
        tail=tail,
        progress=progress,
        parameters=parameters,
    )
    made = assemble_plan(
        prepared.requests,
        prepared.sequences,
        prediction.run,
        lengths=prepared.lengths,
        expected=prepared.expected,
        limits=target.limits,
        metadata=describe(prepared, target, policy, prediction),
        replica=replica,
    )
    return made, prediction
