"""``blendplan run``: the whole job, from a request file to its results."""

from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.job import Job, planning
from blendplan.cli.kept_plan import kept_plan, plan_path
from blendplan.cli.loading import load_option
from blendplan.cli.options import (
    FILE,
    EngineFlags,
    already_option,
    cluster_of,
    cluster_options,
    engine_option,
    policy_option,
    running_options,
)
from blendplan.cli.outcome import resumable, showing, tell_outcome
from blendplan.cli.progress import Progress
from blendplan.cli.quote_options import price_options, prices_of
from blendplan.engines.registry import ENGINES

if TYPE_CHECKING:
    from blendplan.planfile.opened import PlanParts
    from blendplan.replaying.run import Replayed
    from blendplan.replaying.summary import JobSummary
    from blendplan.replaying.tally import Tally

WRITE_EVERY_S = 30.0
"""Seconds after which the summary is written anew, for a run that is killed."""
_SUMMARIES = ("json", "html")
_AGAIN = "the same command again continues it"


@click.command("run", cls=EngineFlags)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE",
    help="Where the results go: JSON lines, or a table where the name ends in .parquet.",
)
@policy_option
@planning(engine_option=engine_option(required=True))
@load_option
@already_option
@cluster_options
@running_options
@price_options
@answering
def command(
    job: Job,
    policy: str,
    output: Path,
    load: str | None,
    ray: str | None,
    replicas_max: int | None,
    gpus_per_replica: int | None,
    prices_file: str | None,
    given_prices: dict[str, float],
    answer: Answer,
    **options: Any,
) -> None:
    """Plan requests, run them on an engine, and write their results.

    The engine is started once; it learns output lengths as requests finish, and arranges anew what
    waits. Every request gets one line of results, an answer or an error. A run that was cut short,
    by whatever, goes on with the same command.

    Beside the results lie the plan (FILE.plan.arrow) and, at the end, what the job was
    (FILE.summary.json and, where matplotlib is installed, FILE.summary.html).

    \b
    blendplan run requests.jsonl --engine vllm --model MODEL --gpu h100-80g -o results.jsonl
    blendplan run requests.jsonl --engine vllm --gpu h100-80g -o results.jsonl --load ORG/NAME
    blendplan run requests.jsonl --engine sim --gpu h100-80g -o results.jsonl --price h100-80g=2.49
    blendplan run requests.jsonl --engine vllm --gpu l40s --replicas 4 --ray auto -o results.jsonl

    What stands after -- goes to the engine's own command line.
    """
    cluster = cluster_of(ray, replicas_max, gpus_per_replica)
    if cluster is None and job.options["replicas"] > 1:
        raise click.UsageError("several --replicas run on a cluster: add --ray auto")
    from blendplan.engines.launch import check_options

    engine = str(job.engine)
    kind = ENGINES.get(engine)
    check_options(
        engine,
        kind,
        arguments=job.engine_args,
        flags=options["flags"],
        pdmux=options["pdmux"],
        log_steps=options["step_log"] is not None,
    )
    if cluster is None:
        kind.check_installed()
    summary_file, page = (output.with_name(f"{output.name}.summary.{end}") for end in _SUMMARIES)
    logs = options["step_log"], options["request_log"]
    check_destinations(
        [output, plan_path(output), summary_file, page, *logs],
        inputs=[*job.paths, options["already"]],
    )
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=[policy]) as clock,
    ):
        job.check()
        from blendplan.hardware.lookup import model_folder

        prices = prices_of([job.options["gpu"]], prices_file, given_prices)
        from blendplan.planfile.opened import the_part, whole_plan
        from blendplan.replaying.course import Course
        from blendplan.replaying.journal import journal_path
        from blendplan.replaying.run import Replayed, replay
        from blendplan.replaying.summary import JobSummary

        opened = kept_plan(job, policy, output, progress)
        one_engine = cluster is None
        plan = the_part(opened, None, "run it with --ray") if one_engine else whole_plan(opened)
        begun = output.exists() or journal_path(output).exists()
        earlier = JobSummary.read(summary_file) if begun else None
        course = Course(showing(progress, engine))
        written_s = monotonic()

        def summary_of(replayed: "Replayed") -> JobSummary:
            return JobSummary.of(
                opened, replayed, course, results=output, earlier=earlier, prices=prices
            )

        def note(tally: "Tally") -> None:
            nonlocal written_s
            course.note(tally)
            if monotonic() - written_s >= WRITE_EVERY_S:
                summary_of(Replayed.so_far(engine, tally)).write(summary_file)
                written_s = monotonic()

        progress.stage(f"starting {engine}")
        with resumable(output, _AGAIN):
            replayed = replay(
                plan,
                engine,
                output,
                model=load or model_folder(job.options["model"]),
                engine_args=job.engine_args,
                replan=job.options["replan"],
                resume=True,
                ray=cluster,
                remark=progress.line,
                progress=note,
                **options,
            )
        summary = summary_of(replayed)
        summary.write(summary_file)
        if summary.values["complete"] and find_spec("matplotlib") is not None:
            progress.stage(f"writing {page.name}")
            _write_page(summary, opened, page)
    more = {"job": summary.headline() | {"summary": str(summary_file)}}
    tell_outcome(answer, replayed, output, clock.seconds, more=more, again=_AGAIN)


def _write_page(summary: "JobSummary", plan: "PlanParts", page: Path) -> None:
    import numpy as np

    from blendplan.report.job import write_job_page

    ends = [plan.part(replica).column("finish_s") for replica in range(len(plan))]
    write_job_page(summary.values, np.concatenate(ends), page)
