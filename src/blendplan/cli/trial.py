"""``blendplan trial``: whether a plan helps a job, tried on some of it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.failure import EXIT_INTERRUPTED, Failure
from blendplan.cli.job import Job, planning
from blendplan.cli.loading import load_option
from blendplan.cli.options import (
    FILE,
    EngineFlags,
    engine_option,
    policy_option,
)
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import within
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError

_AGAIN = "the same command again goes on behind the last whole run"


@click.command("trial", cls=EngineFlags)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="DIR",
    help="Folder for plans, answers, step logs, the profile, and what was found.",
)
@click.option(
    "--requests",
    "most",
    default=2000,
    show_default=True,
    type=within("limit"),
    metavar="N",
    help="How many of the requests to try it on; all where there are no more.",
)
@click.option(
    "--repeats",
    default=1,
    show_default=True,
    type=within("repeats"),
    metavar="N",
    help="How often to run either way, taking turns; three show what chance does.",
)
@policy_option
@planning(engine_option=engine_option(required=True))
@load_option
@answering
def command(
    job: Job,
    policy: str,
    output: Path,
    most: int,
    repeats: int,
    load: str | None,
    answer: Answer,
    flags: tuple[str, ...],
) -> None:
    """Try on some of the requests whether a plan helps.

    An excerpt that is like the whole, in its mix and in the prefixes that it shares, runs on the
    engine in input order, admitted by the engine's own scheduler, and as planned, with the same
    limits. The answer says what was gained and whether the plan's prices were right. Prices fitted
    to the run go into DIR/profile.toml, for --gpu, and the whole job is planned by them.

    The answers in DIR/planned.jsonl need not run again: `replay --already` takes them over. A trial
    that was cut short goes on with the same command.

    \b
    blendplan trial requests.jsonl --engine vllm --model MODEL --gpu h100-80g -o trial/
    blendplan trial requests.jsonl --engine vllm --gpu l4 --requests 500 --repeats 3 -o trial/
    blendplan plan requests.jsonl --gpu trial/profile.toml --model MODEL -o plan.arrow
    blendplan replay plan.arrow --engine vllm --already trial/planned.jsonl -o results.jsonl

    What stands after -- goes to the engine's own command line.
    """
    from blendplan.engines.launch import check_options

    engine = str(job.engine)
    kind = ENGINES.get(engine)
    check_options(engine, kind, arguments=job.engine_args, flags=flags, pdmux=False, log_steps=True)
    kind.check_installed()
    if output.exists() and not output.is_dir():
        raise BlendplanError(f"{output} is a file; give a folder to write the trial into")
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=["fcfs", "dfs", policy]) as clock,
    ):
        job.check()
        from blendplan.hardware.lookup import model_folder
        from blendplan.proving.trial import trial

        read = job.read(progress)
        try:
            values = trial(
                read.requests,
                engine,
                output,
                policy=policy,
                most=most,
                repeats=repeats,
                load=load or model_folder(job.options["model"]),
                engine_args=job.engine_args,
                flags=flags,
                serving=read.serving,
                remark=progress.line,
                progress=progress.report,
                **job.options,
            )
        except KeyboardInterrupt:
            raise Failure(f"interrupted; {_AGAIN}", EXIT_INTERRUPTED) from None
        if not values["complete"]:
            raise Failure(f"interrupted; {_AGAIN}", EXIT_INTERRUPTED)
        for note in read.remarks:
            progress.line(note)
        page = output / "trial.html"
        if find_spec("matplotlib") is not None:
            progress.stage(f"writing {page.name}")
            from blendplan.report.trial_page import write_trial_page

            write_trial_page(values, page)
    _tell(answer, values, output, clock.seconds)


def _tell(answer: Answer, values: dict[str, Any], folder: Path, compile_s: float) -> None:
    from blendplan.report.trial import tried

    told = {name: value for name, value in values.items() if name not in ("runs", "identity")}
    answer.tell(told | {"folder": str(folder), "compile_s": compile_s}, tried)
