"""`trial`: an excerpt of a job in input order and as planned, and what that says of all of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from blendplan.checks.arguments import path as argument_path
from blendplan.checks.arguments import text, whole
from blendplan.checks.ranges import RANGES
from blendplan.cost.machine import check_engine_arguments
from blendplan.engines.kept import KeptEngine
from blendplan.engines.launch import check_options
from blendplan.engines.registry import ENGINES
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.lengths.registry import AUTO
from blendplan.planfile.plan import Plan
from blendplan.planning.options import PlanOptions, check_requests
from blendplan.planning.prepare import Progress
from blendplan.policy.registry import POLICIES
from blendplan.proving.trial_findings import findings
from blendplan.proving.trial_folder import INPUT, PLANNED, TRIAL, TrialFolder
from blendplan.proving.trial_job import TrialJob
from blendplan.proving.trial_runs import Start, run_once, ways
from blendplan.replaying.tally import Tally
from blendplan.requests.columns import Requests

_WORDS = {INPUT: "in input order", PLANNED: "as planned"}
REQUESTS = 2000
"""So many requests an excerpt has where nobody says."""


def trial(
    requests: Requests,
    engine: str,
    folder: Path | str,
    *,
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    policy: str = "blend",
    most: int = REQUESTS,
    repeats: int = 1,
    load: str | None = None,
    engine_args: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    serving: Mapping[str, Any] | None = None,
    replicas: int = 1,
    lengths: str = AUTO,
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    remark: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
    **machine_args: Any,
) -> dict[str, Any]:
    """Run an excerpt of the requests in input order and as planned, and say what that gains.

    Both runs are on one engine with the same limits. What the runs show of step times
    becomes ``profile.toml`` in the folder, and all of the job is planned with it. A trial that was
    cut short goes on with the same arguments; its runs are not run again.

    Args:
        requests: all of the job.
        engine: name of a real engine, or ``sim``.
        folder: where plans, answers, step logs, ``trial.json`` and the profile go.
        gpu, model, machine_args: see `machine`.
        policy: what is tried against input order.
        most: requests of the excerpt; all where there are no more.
        repeats: how often each of both runs; they take turns.
        load, engine_args, flags: as ``model``, ``engine_args`` and ``flags`` of `replay`.
        serving: what the plans say of the engine that the requests were checked for.
        replicas: engines that the whole job is to have; the excerpt runs on one.
        lengths, preserve_sharing, seed, effort, replan: as of `plan`.
        remark: called with a line on anything that the user should know.
        progress: called as stages and runs advance.

    Returns:
        What is in ``trial.json``; see docs/trial.md. ``complete`` is False where a run was
        interrupted, and then there are no figures yet.

    Raises:
        BlendplanError: as `plan` and `replay`; or the folder holds another trial.
    """
    check_requests(requests)
    options = PlanOptions(replicas, lengths, preserve_sharing, seed, effort, replan, progress)
    POLICIES.check(text("policy", policy, "give the name of a policy"))
    most, repeats = whole("most", most, *RANGES["limit"]), whole("repeats", repeats)
    check_engine_arguments("trial", machine_args)
    kind = ENGINES.get(text("engine", engine, "give the name of an engine"))
    start = Start(engine, load, dict(engine_args or {}), tuple(flags), replan)
    check_options(
        engine, kind, arguments=start.engine_args, flags=start.flags, pdmux=False, log_steps=True
    )
    kind.check_installed()
    path = argument_path("folder", folder)
    TRIAL.earlier(path)  # refuses what is in the way before anything is planned
    stage = progress or (lambda name, done, total: None)
    job = TrialJob(requests, gpu, model, machine_args, policy, options, stage)
    chosen, plans = job.planned(most, serving)
    store = TrialFolder(path, job.identity(start, most, plans))
    for way, plan in plans.items():
        plan.write(store.plan(way))
    if not _run_all(store, plans, start, repeats, remark, stage):
        values: dict[str, Any] = {"complete": False}
    elif _is_whole(store, replicas):
        return store.earlier
    else:
        values = findings(job, start, chosen, plans, store)
    return store.found(values)


def _is_whole(store: TrialFolder, replicas: int) -> bool:
    """Whether all was found before; runs do not depend on the replicas of the whole job."""
    before = store.earlier
    if not before.get("complete"):
        return False
    if before["profile"] and not store.profile.exists():
        return False
    return bool(before["whole"]["replicas"] == replicas)


def _run_all(
    store: TrialFolder,
    plans: Mapping[str, Plan],
    start: Start,
    repeats: int,
    remark: Callable[[str], None],
    stage: Progress,
) -> bool:
    """Run what is not done; False where it was interrupted."""
    with KeptEngine(ENGINES.get(start.engine)) as kept:
        for repeat in range(1, repeats + 1):
            for way in ways(repeat):
                if store.is_done(way, repeat):
                    remark(f"run before: {store.results(way, repeat)}")
                    continue
                title = _WORDS[way] + (f", {repeat} of {repeats}" if repeats > 1 else "")
                stage(f"{start.engine}, {title}", 0, 0)
                done = run_once(
                    *(store, way, repeat, plans[way], start, kept),
                    remark=remark,
                    progress=partial(_show, stage, title),
                )
                if not done:
                    return False
    return True


def _show(stage: Progress, title: str, tally: Tally) -> None:
    stage(f"{title}: {tally.line()}", tally.requests - tally.left, tally.requests)
