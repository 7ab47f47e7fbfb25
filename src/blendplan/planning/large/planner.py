"""`plan_files`: the main path of planning larger than memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import blendplan
from blendplan.checks.arguments import one_of, text, whole
from blendplan.checks.arguments import path as argument_path
from blendplan.cost.machine import check_engine_arguments, machine
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.model import ModelSpec
from blendplan.planfile.columns import FORMAT_VERSION
from blendplan.planfile.folder import PlanFolder, open_folder, write_manifest
from blendplan.planning.large.dividing import Share, distribute, divide_ranges
from blendplan.planning.large.gathering import Gathered, gather_groups
from blendplan.planning.large.job import TASK_BYTES, Job
from blendplan.planning.large.output import REJECTS, working_in
from blendplan.planning.large.parts import Made, Part, PartPlanned, plan_part
from blendplan.planning.large.pricing import Corpus, Priced, price_range
from blendplan.planning.large.ranges import Range, cut_ranges
from blendplan.planning.large.ray_tasks import on_ray
from blendplan.planning.large.reading import groups_of, read_group
from blendplan.planning.large.tasks import LocalTasks, Tasks
from blendplan.planning.large.whole import describe_whole
from blendplan.planning.options import PlanOptions
from blendplan.planning.prepare import Progress
from blendplan.policy.registry import POLICIES
from blendplan.requests.fingerprint import tokenizer_fingerprint
from blendplan.requests.inputs import find_inputs
from blendplan.requests.rejects import NO_REJECTS
from blendplan.requests.shape import SHAPING, Shape

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[str, Callable[[Item], Result], Sequence[Item]], Iterator[Result]]
"""Runs a stage: its name, a task's function, and what to call it with; results in that order."""


def plan_files(
    files: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    gpu: str | Path | GpuSpec,
    model: str | Path | ModelSpec = "llama-3.1-8b",
    policy: str = "blend",
    replicas: int = 1,
    lengths: str = "auto",
    preserve_sharing: float = 0.99,
    seed: int = 0,
    effort: int = 1,
    replan: bool = True,
    on_error: str = "fail",
    rejects: str | Path | None = None,
    processes: int | None = None,
    ray: str | None = None,
    task_bytes: int = TASK_BYTES,
    progress: Progress | None = None,
    remark: Callable[[str], None] | None = None,
    **others: Any,
) -> PlanFolder:
    """Plan the requests of many files, which need not fit into memory, into a folder.

    The folder gets a plan file for each replica that has requests, and at the very end a manifest;
    a plan that is there already stays whole until then. The same files give the same plan, whatever
    the number of processes. A process needs the memory of one part, about ten times its prompts and
    bodies; more replicas make parts smaller.

    Args:
        files: paths, folders, globs or addresses; see `find_inputs`.
        folder: where the plan goes: a new or empty folder, or one with an earlier plan. With Ray,
            on a file system that all nodes see. About twice the prompts and bodies are kept in it
            while it is made.
        gpu, model: see `blendplan.cost.machine.machine`.
        policy, replicas, preserve_sharing, seed, effort, replan: as of `blendplan.plan`.
        lengths: ``auto``, ``prior`` or ``known``; see `predict_lengths`.
        on_error, rejects: as of `read_requests`; by default, what is left out goes
            to ``rejects.jsonl`` in the folder.
        processes: of this machine; see `LocalTasks`. A script that calls this with more than one
            needs ``if __name__ == "__main__":``.
        ray: ``local``, ``auto`` or an address, to run tasks on a Ray cluster; see `connected`.
        task_bytes: prompts and bodies that a task before the parts takes up at once, about. Where
            requests are cut apart for it changes the plan by a trifle.
        progress: called as tasks end.
        remark: gets what a reader should know of the requests, one line each.
        others: of the engine, see `machine`, and what becomes of rows and lines that are not
            requests yet, see `Shape`.

    Raises:
        BlendplanError: files or options that cannot be used, a bad request, no Ray cluster.
    """
    how = PlanOptions(replicas, lengths, preserve_sharing, seed, effort, replan, progress)
    POLICIES.check(text("policy", policy, "give the name of a policy"))
    engine = {name: value for name, value in others.items() if name not in SHAPING}
    check_engine_arguments("plan_files", engine)
    shape = Shape.of("plan_files", {name: others[name] for name in SHAPING if name in others})
    one_of("on_error", on_error, ("fail", "skip"))
    folder = argument_path("folder", folder)
    job = Job(
        folder,
        machine(gpu, model, **engine),
        Path(model) if isinstance(model, str | Path) and Path(model).is_dir() else None,
        on_error == "skip",
        shape,
        policy,
        how,
        whole("task_bytes", task_bytes, 1, 1 << 40),
    )
    words = [files] if isinstance(files, str | Path) else files
    inputs = find_inputs([str(word) for word in words])
    rejects_path = folder / REJECTS if rejects is None else argument_path("rejects", rejects)
    with working_in(folder) as work:
        job = job.working_in(work)
        with _tasks(ray, processes, work) as tasks:
            run = _running(tasks, progress)
            groups = groups_of(inputs, job.task_bytes)
            read = run("reading", partial(read_group, job), groups)
            gathered = gather_groups(job, inputs, groups, read, rejects_path)
            ranges, priced = _price(job, gathered, run)
            shares = _divide(job, gathered, ranges, priced, how.replicas, run)
            parts = _plan(job, gathered, shares, run)
        _write(folder, work, job, gathered, priced, parts)
    for line in gathered.remarks.lines():
        if remark is not None:
            remark(line)
    return open_folder(folder)


def _tasks(ray: str | None, processes: int | None, work: Path) -> AbstractContextManager[Tasks]:
    if ray is not None:
        return on_ray(text("ray", ray, "give 'local', 'auto' or an address"), work)
    return LocalTasks(None if processes is None else whole("processes", processes))


def _running(tasks: Tasks, progress: Progress | None) -> Run[Any, Any]:
    def run(
        stage: str, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[Result]:
        for done, result in enumerate(tasks.map(function, items)):
            if progress is not None:
                progress(stage, done + 1, len(items))
            yield result

    return run


def _corpus(gathered: Gathered) -> Corpus:
    return Corpus(gathered.file_rows, gathered.estimated)


def _price(job: Job, gathered: Gathered, run: Run[Any, Any]) -> tuple[list[Range], list[Priced]]:
    """Ranges that hold any requests, in order, and what they cost."""
    ranges = cut_ranges(gathered.runs, job.range_bytes, gathered.dropped)
    priced = run("sorting", partial(price_range, job, _corpus(gathered)), ranges)
    both = [(one, costs) for one, costs in zip(ranges, priced, strict=True) if costs is not None]
    return [one for one, _ in both], [costs for _, costs in both]


def _divide(
    job: Job,
    gathered: Gathered,
    ranges: Sequence[Range],
    priced: Sequence[Priced],
    replicas: int,
    run: Run[Any, Any],
) -> list[list[Share]]:
    """Where the requests of each part are."""
    divisions = divide_ranges(ranges, priced, replicas)
    shares: list[list[Share]] = [
        [] for _ in range(1 + max(int(division.part.max()) for division in divisions))
    ]
    for of_range in run("dividing", partial(distribute, job, _corpus(gathered)), divisions):
        for number, share in of_range.items():
            shares[number].append(share)
    for one in gathered.runs:
        one.path.unlink()
    return shares


def _plan(
    job: Job, gathered: Gathered, shares: Sequence[Sequence[Share]], run: Run[Any, Any]
) -> list[PartPlanned]:
    tokenizer = None if job.model_dir is None else tokenizer_fingerprint(job.model_dir)
    made = Made(gathered.estimated, gathered.sha256, tokenizer, gathered.columns)
    parts = [
        Part(number, mine, NO_REJECTS if number else gathered.rejected)
        for number, mine in enumerate(shares)
    ]
    # Parts are alike, so that what suits one suits all.
    planned = list(run("choosing settings", partial(plan_part, job, made), parts[:1]))
    made = replace(made, parameters=planned[0].metadata["policy_parameters"])
    return planned + list(run("planning parts", partial(plan_part, job, made), parts[1:]))


def _write(
    folder: Path,
    work: Path,
    job: Job,
    gathered: Gathered,
    priced: Sequence[Priced],
    parts: Sequence[PartPlanned],
) -> None:
    """The plan is there when the manifest is, which is last."""
    for part in parts:
        (work / part.file.file).replace(folder / part.file.file)
    write_manifest(
        folder,
        describe_whole(job.target, priced, parts, job.how.replicas, gathered.unknown),
        [part.file for part in parts],
        [
            {"name": one.name, "sha256": file.sha256, "rows": file.rows}
            for one, file in zip(gathered.inputs, gathered.files, strict=True)
        ],
        job.options(),
        {"blendplan": blendplan.__version__, "plan_format": str(FORMAT_VERSION)},
    )
