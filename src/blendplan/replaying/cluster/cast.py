"""`cluster_cast`: the engines of a run on a Ray cluster."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from blendplan.engines.kind import EngineKind
from blendplan.engines.launch import Remark
from blendplan.engines.protocol import Launch
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.planfile.shared import shared_plans
from blendplan.replaying.cluster.actor import Part
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.cluster.room import replicas_that_fit, seen
from blendplan.replaying.fleet import Cast, Fleet

_CPUS = 1
# How far simulated clocks may be apart, as a share of the planned makespan.
_APART = 0.005


def cluster_cast(
    ray: Any, cluster: Cluster, plan: Plan, kind: EngineKind, launch: Launch, remark: Remark
) -> Cast:
    """Engines on a cluster that this process is connected to.

    Args:
        ray: the module.
        cluster: what the user asked for.
        plan: of all replicas.
        kind: of the engine.
        launch: how each is started.
        remark: called with a line on anything that the user should know.

    Raises:
        BlendplanError: there is no room for one.
    """
    plans = shared_plans(plan)
    gpus = cluster.gpus_per_replica
    if gpus is None:
        gpus = launch.tp if kind.loads_model else 0
    fits = replicas_that_fit(ray, _CPUS, gpus)
    planned = len(plans)
    most = cluster.replicas_max or (planned if planned > 1 else max(1, fits))
    need = f"{gpus} GPU{'s' * (gpus != 1)} and {_CPUS} CPU on one node"
    if not fits and cluster.replicas_max is None:
        raise BlendplanError(
            f"an engine needs {need}, the Ray cluster has {seen(ray)}; add nodes, or give "
            "--replicas-max where an autoscaler will"
        )
    at_first = max(1, min(most, fits))
    if at_first < most:
        remark(
            f"{at_first} of {most} engines fit now ({need} each; the Ray cluster has {seen(ray)}); "
            "others begin when there is room"
        )
    launch = _anywhere(launch)
    parts = [Part(number, kind, plans[number % planned].metadata, launch) for number in range(most)]
    makespan_s = float(plan.metadata["predicted"]["makespan_s"])

    def fleet() -> Fleet:
        from blendplan.replaying.cluster.fleet import RayFleet  # imports Ray

        return RayFleet(
            plans[0].table,
            parts,
            {"num_cpus": _CPUS, "num_gpus": gpus},
            patience_s=cluster.patience_s,
            apart_s=0.0 if cluster.in_step else _APART * makespan_s,
            remark=remark,
        )

    return Cast(fleet, most, at_first)


def _anywhere(launch: Launch) -> Launch:
    """The launch with paths that do not depend on where a process runs."""
    model = Path(launch.model)
    return replace(
        launch,
        model=str(model.resolve()) if model.is_dir() else launch.model,
        log=None if launch.log is None else launch.log.resolve(),
    )
