"""`findings`: what the runs of a trial say: the gain, the prices, and all of the job by those."""

from collections.abc import Mapping
from typing import Any

from blendplan import __version__
from blendplan.cost.machine import machine
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.profile import write_profile
from blendplan.lengths.protocol import stated_lengths
from blendplan.lengths.registry import AUTO
from blendplan.planfile.plan import Plan
from blendplan.planning.compare import compare
from blendplan.proving.excerpt import Excerpt
from blendplan.proving.trial_folder import PLANNED, WAYS, TrialFolder
from blendplan.proving.trial_gain import gained, remarks
from blendplan.proving.trial_job import INPUT_POLICY, TrialJob
from blendplan.proving.trial_prices import TrialPrices
from blendplan.proving.trial_runs import Start

_PREDICTED = (
    *("makespan_s", "throughput_tokens_per_s", "steps", "preemptions"),
    *("prompt_tokens", "output_tokens"),
)
_LIMITS = ("kv_tokens", "max_num_seqs", "max_num_batched_tokens")


def findings(
    job: TrialJob, start: Start, chosen: Excerpt, plans: Mapping[str, Plan], store: TrialFolder
) -> dict[str, Any]:
    """All that ``trial.json`` says; writes the profile.

    Args:
        job: what was tried.
        start: how its engine was started.
        chosen: the excerpt.
        plans: of it, by way.
        store: the folder; every run is done.
    """
    gain = gained(store.runs)
    predicted = {way: _predicted(plan) for way, plan in plans.items()}
    throughput = [predicted[way]["throughput_tokens_per_s"] for way in WAYS]
    return {
        "blendplan": __version__,
        "complete": True,
        "engine": start.engine,
        "simulated": start.engine == "sim",
        "model": job.target.model.name,
        "gpu": job.target.gpu.name,
        "tp": job.target.tp,
        "policy": job.policy,
        # `blend` is a plain order where simulation finds nothing better.
        "order": plans[PLANNED].metadata["policy_parameters"].get("order", job.policy),
        "limits": {"planned": _limits(job.target.limits.as_metadata()), "engine": _started(store)},
        "excerpt": chosen.likeness,
        "gain": gain,
        "predicted": predicted | {"gain": throughput[1] / throughput[0] - 1.0},
        "makespan_error": {
            way: predicted[way]["makespan_s"] / gain[way]["makespan_s"] - 1.0 for way in WAYS
        },
        **_priced(job, store),
        "remarks": [*chosen.remarks(), *remarks(gain, store.runs)],
    }


def _predicted(plan: Plan) -> dict[str, Any]:
    told = plan.metadata["predicted"]
    sharing = plan.metadata["prefix_sharing"]["planned"]
    return {name: told[name] for name in _PREDICTED} | {"prefix_sharing": sharing}


def _limits(limits: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(limits[name]) for name in _LIMITS}


def _started(store: TrialFolder) -> dict[str, int]:
    """Limits that the engine really had in the last run."""
    return _limits(store.runs[-1]["limits"])


def _priced(job: TrialJob, store: TrialFolder) -> dict[str, Any]:
    """Whether the prices were right, better ones, and all of the job by those."""
    job.stage("fitting prices", 0, 0)
    prices, real = TrialPrices.read(store), {**job.machine_args, **_started(store)}
    if not prices.logs:
        whole = _whole(job, job.target.gpu, store, real)
        return {"prices": None, "no_prices": prices.why, "profile": None, "whole": whole}
    given = machine(job.gpu, job.model, **real)
    profile = prices.fitted(given)
    write_profile(profile, store.profile)
    by_steps = {**real, "cost": "calibrated"}
    return {
        "prices": {
            "given": prices.errors(given),
            "fitted": prices.errors(machine(profile, job.model, **by_steps)),
            "points": prices.points(given),
        },
        "profile": store.profile.name,
        "whole": _whole(job, profile, store, by_steps),
    }


def _whole(
    job: TrialJob, gpu: GpuSpec, store: TrialFolder, machine_args: Mapping[str, Any]
) -> dict[str, Any]:
    """What the policies come to on all requests, by simulation."""
    options, lengths = job.options, job.options.lengths
    if lengths == AUTO and (stated_lengths(job.requests) < 0).any():
        lengths = f"sample:{store.results(PLANNED, 1)}"
    found = compare(
        job.requests,
        policies=list(dict.fromkeys((INPUT_POLICY, "dfs", job.policy))),
        gpu=gpu,
        model=job.model,
        replicas=options.replicas,
        lengths=lengths,
        preserve_sharing=options.preserve_sharing,
        seed=options.seed,
        effort=options.effort,
        replan=options.replan,
        progress=job.stage,
        **machine_args,
    )
    runs = {name: outcome.run for name, outcome in found.outcomes.items()}
    ours_s = runs[job.policy].makespan_s
    return {
        "requests": len(job.requests),
        "replicas": options.replicas,
        "lengths": lengths.partition(":")[0],
        "policies": {
            name: {
                "makespan_s": run.makespan_s,
                "throughput_tokens_per_s": run.throughput_tokens_per_s,
                "prefix_sharing": run.prefix_sharing,
                "preemptions": run.preemptions,
                "bound_ratio": found.outcomes[name].bound.makespan_s / run.makespan_s,
                "gain": run.makespan_s / ours_s - 1.0,
            }
            for name, run in runs.items()
        },
        "verdict": list(found.verdict.sentences),
    }
