"""`replay`: run a plan on an engine."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from blendplan.checks.arguments import dictionary, flag, function, instance, one_of, text, whole
from blendplan.checks.arguments import path as argument_path
from blendplan.cluster.connect import connected
from blendplan.engines.kept import KeptEngine
from blendplan.engines.launch import Remark, check_options, launch_of, model_to_load
from blendplan.engines.protocol import Capacity, EngineDiedError, Launch
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.replaying.balance import divide
from blendplan.replaying.cluster.cast import cluster_cast
from blendplan.replaying.cluster.options import Cluster
from blendplan.replaying.fleet import Cast, LocalFleet
from blendplan.replaying.intake import Intake
from blendplan.replaying.job import Job, job_of_plan
from blendplan.replaying.journal import Journal, Order
from blendplan.replaying.logs import REQUEST_LOG, open_log, step_log_of
from blendplan.replaying.loop import ReplayLoop, session_of
from blendplan.replaying.shares import Shares
from blendplan.replaying.started import Started
from blendplan.replaying.stop import Stop
from blendplan.replaying.tally import Tally
from blendplan.replaying.writer import ResultsWriter

_OWN_NAMES = "give a dictionary of the engine's own arguments by name"


@dataclass(frozen=True)
class Replayed:
    """How a run went.

    Attributes:
        engine: name of the engine.
        tally: counts of this session.
        interrupted: True when the run was asked to stop before its end.
        capacity: limits of the engine; None when nothing was left to run.
        planned: the ``predicted`` object of the plan's metadata, with its prefix sharing; empty
            where nothing was planned.
        replan: what was learned of output lengths in this session and when, see `Reviser`; None
            where nothing was to be learned.
        replicas: of several, what each did, see `Station.as_dict`; empty for one engine.
    """

    engine: str
    tally: Tally
    interrupted: bool
    capacity: Capacity | None
    planned: dict[str, Any]
    replan: dict[str, Any] | None = None
    replicas: tuple[dict[str, Any], ...] = ()

    @classmethod
    def so_far(cls, engine: str, tally: Tally) -> "Replayed":
        """How a run goes that has not ended."""
        return cls(engine, tally, interrupted=True, capacity=None, planned={})

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON values, by the names that plans use."""
        tally = self.tally
        return {
            "engine": self.engine,
            "requests": tally.requests,
            "finished": tally.finished,
            "failed": tally.failed,
            "already_done": tally.already_done,
            "interrupted": self.interrupted,
            "makespan_s": tally.elapsed_s if self.capacity else None,
            "throughput_tokens_per_s": tally.throughput_tokens_per_s if self.capacity else None,
            "prompt_tokens": tally.prompt_tokens,
            "output_tokens": tally.output_tokens,
            "prefix_sharing": tally.cached_share,
            "steps": tally.steps or None,
            "preemptions": tally.preemptions,
            "restarts": tally.restarts,
            "kv_tokens": None if self.capacity is None else self.capacity.limits.kv_tokens,
            "predicted": self.planned,
            "replan": self.replan,
            "replicas": list(self.replicas),
        }


def replay(
    plan: Plan,
    engine: str = "sim",
    output: Path | str | None = None,
    *,
    model: str | None = None,
    engine_args: Mapping[str, Any] | None = None,
    order: Order = "input",
    resume: bool = False,
    retries: int = 2,
    already: Path | None = None,
    limit: int | None = None,
    flags: Sequence[str] = (),
    pdmux: bool = False,
    replan: bool = True,
    step_log: Path | None = None,
    request_log: Path | None = None,
    ray: Cluster | str | None = None,
    stock: bool = False,
    kept: KeptEngine | None = None,
    remark: Remark = lambda line: None,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Replayed:
    """Run a plan's requests on an engine, or on several of a Ray cluster, and write their results.

    Every request gets exactly one line in the results file, an answer or an error. A run that is
    cut short, by whatever, leaves a journal beside it and goes on with ``resume``.

    Args:
        plan: what to run.
        engine: its name; see `ENGINES`.
        output: results file, OpenAI batch output lines, or a table (see `write_table`) where its
            name ends in ``.parquet``; None writes none.
        model: name or directory of the model, as the engine knows it; by default the published
            model that the plan's numbers come from.
        engine_args: arguments for the engine by its own names; they win over the plan's.
        limit: run the first requests of the file alone, so many, as a trial; their results serve
            the whole as ``already``.
        flags: words of the engine's own command line, such as ``--tool-call-parser hermes``; they
            win over the plan's.
        order: ``input`` gives the results the order of the request file, at the end; ``finish``
            writes them as they come.
        resume: continue an interrupted run, or begin one where there is none.
        retries: further attempts of a request that failed or whose engine died.
        already: a results file with answers to take over, such as a sampling run's.
        pdmux: share the GPU in space between prefill and decode, where the engine can.
        replan: whether output lengths are learned from the requests that end, and what waits is
            arranged anew, where the plan says so.
        step_log, request_log: Parquet files for what each step computed and each request took.
        ray: run all replicas of the plan on a Ray cluster: ``auto``, ``local``, an address, or a
            `Cluster` that says more; without it, one engine here.
        stock: give the requests to the engine's own scheduler, in the order of the plan; what a
            plan is compared with.
        kept: of this kind of engine, for several runs one after the other on one.
        remark: called with a line on anything that the user should know.
        progress: called after each step with the state of the run.

    Raises:
        BlendplanError: the engine does not start or cannot be kept alive, the results cannot be
            written, or a journal or results are in the way.
        KeyboardInterrupt: a second Ctrl-C, or SIGTERM; the run can be resumed.
    """
    instance("plan", plan, Plan, "give what plan() or Plan.read() returns")
    cluster = None if ray is None else Cluster.of(ray)
    if cluster is None:
        plan.refuse_parts()
    kind = ENGINES.get(text("engine", engine, "give the name of an engine"))
    if stock and (kind.needs_plan or cluster is not None):
        raise BlendplanError(
            f"{kind.title} has no scheduler of its own; plan with another policy instead"
            if kind.needs_plan
            else "a run on the engine's own scheduler is of one engine; drop ray"
        )
    path, already, step_log, request_log = (
        None if value is None else argument_path(name, value)
        for name, value in (
            ("output", output),
            ("already", already),
            ("step_log", step_log),
            ("request_log", request_log),
        )
    )
    model = None if model is None else text("model", model, "give a model's name or its folder")
    arguments = {} if engine_args is None else dictionary("engine_args", engine_args, _OWN_NAMES)
    order = "finish" if one_of("order", order, ("input", "finish")) == "finish" else "input"
    resume, pdmux, replan = flag("resume", resume), flag("pdmux", pdmux), flag("replan", replan)
    retries = whole("retries", retries)
    function("remark", remark)
    function("progress", progress)
    log_steps = step_log is not None
    flags = tuple(text("flags", one, "give words of a command line") for one in flags)
    check_options(engine, kind, arguments=arguments, flags=flags, pdmux=pdmux, log_steps=log_steps)
    if not len(plan):
        raise BlendplanError("the plan holds no requests; there is nothing to replay")
    model = model_to_load(plan, engine, kind, model, remark)
    launch = launch_of(
        plan, model, arguments, flags=flags, pdmux=pdmux, log_steps=log_steps, output=path
    )
    job = replace(job_of_plan(plan, kind if kept is None else kept.kind), stock=stock)
    run = partial(
        run_job,
        job if limit is None else job.first(whole("limit", limit, 1)),
        engine,
        path,
        launch,
        order=order,
        resume=resume,
        retries=retries,
        already=already,
        replan=replan,
        step_log=step_log,
        request_log=request_log,
        remark=remark,
        progress=progress,
    )
    if cluster is None:
        return run()
    with connected(cluster.address) as module:
        return run(cast=cluster_cast(module, cluster, plan, kind, launch, remark))


def run_job(
    job: Job,
    name: str,
    path: Path | None,
    launch: Launch,
    *,
    order: Order = "input",
    resume: bool = False,
    retries: int = 2,
    already: Path | None = None,
    replan: bool = True,
    step_log: Path | None = None,
    request_log: Path | None = None,
    remark: Remark = lambda line: None,
    progress: Callable[[Tally], None] = lambda tally: None,
    cast: Cast | None = None,
) -> Replayed:
    """Run the requests of a job on an engine, or on several, and write their results.

    Args:
        job: what to run.
        name: of the engine.
        path: results file, None for none.
        launch: how to start the engine.
        cast: the engines, where there is not just one on this machine.
        order, resume, retries, already, replan, step_log, request_log, remark, progress: as of
            `replay`.

    Raises: as `replay`.
    """
    if path is None and (resume or already is not None):
        raise BlendplanError(
            "only a run with a results file can be resumed or take results over; "
            "give an output path"
        )
    tally = Tally(job.requests, dict(job.predicted))
    identity = {"plan": job.digest, "engine": name, "model": launch.model}
    if job.left_out is not None:
        identity["limit"] = str(job.requests)
    journal = None if path is None else Journal(path, order, identity)
    writer = ResultsWriter(job, journal)
    with ExitStack() as open_things:
        open_things.callback(writer.close)
        if already is not None:
            writer.check_answers(already)
        if journal is not None:
            _open_journal(journal, writer, tally, resume=resume, remark=remark)
        if job.rejected.num_rows:
            remark(
                f"planning left out {job.rejected.num_rows} requests of the file; they get their "
                "error lines at the end"
            )
        if job.repeats:
            remark(
                f"{job.repeats} requests are identical to others and do not run; they get the "
                "answers of these at the end"
            )
        if already is not None:
            taken = writer.adopt(already)
            tally.already_done += taken
            remark(f"{taken} requests have their answer in {already}")
        if not tally.left:
            if journal is not None and journal.path.exists():
                writer.complete()
            return Replayed(name, tally, False, None, tally.predicted)

        if launch.log is not None:
            launch.log.unlink(missing_ok=True)  # an earlier session's
        stop = open_things.enter_context(Stop(lambda: remark(_stopping(path))))

        steps = open_things.enter_context(open_log(step_log, step_log_of(job.reach)))
        requests = open_things.enter_context(open_log(request_log, REQUEST_LOG))
        if cast is None:
            cast = Cast(lambda: LocalFleet(lambda replica, session: job.start(0, launch, session)))
        started = Started(name, job.limits, remark)
        loop = ReplayLoop(
            cast.fleet(),
            _shares(job, writer, cast),
            partial(session_of, job, writer, replan),
            Intake(
                job.rows,
                writer,
                tally,
                retries=retries,
                steps=steps,
                requests=requests,
                remark=remark,
            ),
            tally,
            stop,
            remark=remark,
            started=started.check,
            progress=progress,
        )
        try:
            loop.run()
        except EngineDiedError as error:
            where = "" if Path(launch.model).is_dir() else f" ({launch.model!r} is no folder here)"
            raise BlendplanError(f"{name} did not start{where}: {error}") from None
        if not tally.left:
            writer.complete()
    several = len(loop.stations) > 1
    return Replayed(
        name,
        tally,
        tally.left > 0,
        started.capacity,
        tally.predicted,
        None if several else loop.stations[0].learned,
        tuple(station.as_dict() for station in loop.stations) if several else (),
    )


def _shares(job: Job, writer: ResultsWriter, cast: Cast) -> Shares:
    """Who runs what of what is left."""
    several = cast.most > 1 and job.parts is not None
    parts = job.parts() if several and job.parts is not None else None
    shares = Shares.divided(job.rows, parts, writer.done, cast.most)
    if several:
        divide(shares, cast.at_first)
    return shares


def _open_journal(
    journal: Journal, writer: ResultsWriter, tally: Tally, *, resume: bool, remark: Remark
) -> None:
    if resume and journal.path.exists():
        tally.already_done = writer.recover()
        remark(f"resuming: {tally.already_done} of {tally.requests} requests are done")
        if journal.damaged:
            lines = ", ".join(map(str, journal.damaged[:5]))
            more = f" and {len(journal.damaged) - 5} more" if len(journal.damaged) > 5 else ""
            remark(
                f"{journal.lines_path} was damaged in line {lines}{more}: what stood there runs "
                "again, all other answers are kept"
            )
    elif resume and journal.output.exists():
        tally.already_done, tally.failed = writer.recognise(journal.output)
        remark(f"{journal.output} is complete: nothing to resume")
    else:
        journal.begin()


def _stopping(output: Path | None) -> str:
    if output is None:
        return "stopping when the running requests are finished; Ctrl-C again stops at once"
    return (
        "stopping when the running requests are finished; Ctrl-C again stops at once; "
        "either way the run can be continued"
    )
