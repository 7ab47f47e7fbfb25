"""``blendplan replay``: run a plan on an engine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, Failure
from blendplan.cli.names import Name
from blendplan.cli.planning_options import FILE
from blendplan.cli.progress import Progress
from blendplan.errors import BlendplanError

if TYPE_CHECKING:
    from blendplan.planfile import Plan

# Written down here because `blendplan.engines` takes too long to import for `--help`.
ENGINES = ("sim", "vllm", "sglang")


def _engine_args(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> dict[str, Any]:
    """``KEY=VALUE`` words as a dictionary; a value that is not JSON is taken as text."""
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name.isidentifier() or not equals:
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", ctx, param)
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


@click.command("replay")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where the results go (JSONL).")
@click.option(
    "--engine",
    default="sim",
    show_default=True,
    type=Name("engine", ENGINES),
    metavar="NAME",
    help=f"What runs the requests: {', '.join(ENGINES)}.",
)
@click.option(
    "--replica",
    type=click.IntRange(min=0),
    metavar="I",
    help="Which part to run of a plan for several replicas, from 0.",
)
@click.option("--model", metavar="NAME", help="Name or folder of the model.  [default: the plan's]")
@click.option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    callback=_engine_args,
    metavar="KEY=VALUE",
    help="Argument of the engine by its own name, the value as JSON; wins over the plan's. "
    "Give it as often as you like.",
)
@click.option(
    "--order",
    default="input",
    show_default=True,
    type=Name("order of results", ("input", "finish")),
    metavar="input|finish",
    help="Order of the results: of the request file, at the end, or as they come.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run.")
@click.option(
    "--retries",
    default=2,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Further attempts of a request that failed.",
)
@click.option(
    "--already", type=FILE, metavar="FILE", help="Results to take over, such as a sample's."
)
@click.option("--pdmux", is_flag=True, help="SGLang: share the GPU between prefill and decode.")
@click.option("--step-log", type=FILE, metavar="FILE", help="Log every step (Parquet).")
@click.option("--request-log", type=FILE, metavar="FILE", help="Log every request (Parquet).")
@answering
def command(plan_file: Path, replica: int | None, answer: Answer, **options: Any) -> None:
    """Run a plan on an engine.

    The requests of PLAN go in its order and under its memory partition. The engine sim simulates
    the steps of a real one; it needs no GPU and no --output. Every request gets one line of
    results, an answer or an error.

    \b
    blendplan replay plan.arrow --engine sim
    blendplan replay plan.arrow --engine vllm -o results.jsonl
    blendplan replay plan.arrow --engine vllm -o results.jsonl --resume
    """
    output, engine = options["output"], options["engine"]
    if output is None and engine != "sim":
        raise click.UsageError(f"--engine {engine} needs -o FILE: where the results go")
    check_destinations(
        [output, options["step_log"], options["request_log"]],
        inputs=[plan_file, options["already"]],
    )
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line) as clock:
        from blendplan.engines import Tally, replay
        from blendplan.planfile import Plan

        def advance(tally: Tally) -> None:
            progress.report(
                f"{engine}: {tally.line()}", tally.requests - tally.left, tally.requests
            )

        plan = _part(Plan.read(plan_file), replica)
        progress.stage(f"starting {engine}")
        replayed = replay(plan, remark=progress.line, progress=advance, **options)

    from blendplan.report.replayed import replayed_rows
    from blendplan.report.summary import facts

    values = replayed.as_dict() | {
        "output": None if output is None else str(output),
        "compile_s": clock.seconds,
    }
    answer.tell(values, lambda: facts(replayed_rows(values)))
    if replayed.interrupted:
        raise Failure("interrupted; --resume continues the run", EXIT_INTERRUPTED)
    if values["failed"]:
        raise Failure(
            f"{values['failed']} of {values['requests']} requests failed; "
            f"their lines in the results say why",
            EXIT_FAILED,
        )


def _part(plan: "Plan", replica: int | None) -> "Plan":
    replicas = len(plan.metadata.get("parts", [plan]))
    if replica is None and replicas > 1:
        raise BlendplanError(
            f"the plan is for {replicas} replicas; run each with --replica 0 to {replicas - 1}"
        )
    return plan.part(replica or 0)
