"""``blendplan replay``: run a plan on an engine."""

from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.options import (
    FILE,
    EngineFlags,
    already_option,
    cluster_of,
    cluster_options,
    engine_option,
    engine_options,
    no_replan,
)
from blendplan.cli.outcome import resumable, showing, tell_outcome
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import within
from blendplan.engines.registry import ENGINES


@click.command("replay", cls=EngineFlags)
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    help="Where the results go: JSON lines, or a table where the name ends in .parquet.",
)
@engine_option(default="sim", show_default=True)
@click.option(
    "--replica",
    type=within("replica"),
    metavar="I",
    help="Which part of a plan for several replicas to run, counted from 0.",
)
@already_option
@click.option(
    "--limit",
    type=within("limit"),
    metavar="N",
    help="Run the first N requests of the file alone, as a trial; --already takes their results "
    "over later.",
)
@cluster_options
@engine_options
@no_replan
@answering
def command(
    plan_file: Path,
    replica: int | None,
    ray: str | None,
    replicas_max: int | None,
    gpus_per_replica: int | None,
    answer: Answer,
    **options: Any,
) -> None:
    """Run a plan on an engine.

    Requests are admitted by the policy that made PLAN, in its order and within its memory
    partition. Every request gets one line of results, an answer or an error; the simulated engine
    also runs without --output. Results that are named .parquet are a table, with the columns of the
    data beside the answers.

    \b
    blendplan replay plan.arrow --engine sim
    blendplan replay plan.arrow --engine vllm -o results.jsonl
    blendplan replay plan.arrow --engine vllm -o results.jsonl --resume
    blendplan replay plan.arrow --engine vllm -o results.jsonl -- --tool-call-parser hermes
    blendplan replay plan.arrow --engine vllm -o results.jsonl --ray auto

    What stands after -- goes to the engine's own command line.
    """
    output, engine = options["output"], options["engine"]
    if output is None and ENGINES.get(engine).needs_results:
        raise click.UsageError(f"--engine {engine} needs -o FILE: where the results go")
    cluster = cluster_of(ray, replicas_max, gpus_per_replica)
    if ray is not None and replica is not None:
        raise click.UsageError("--ray runs all replicas; drop --replica")
    check_destinations(
        [output, options["step_log"], options["request_log"]],
        inputs=[plan_file, options["already"]],
    )
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line) as clock:
        from blendplan.planfile.opened import open_plan, the_part, whole_plan
        from blendplan.replaying.run import replay

        opened = open_plan(plan_file)
        if cluster is None:
            plan = the_part(opened, replica, "run all with --ray, or each")
        else:
            plan = whole_plan(opened)
        progress.stage(f"starting {engine}")
        with resumable(output):
            replayed = replay(
                plan,
                ray=cluster,
                remark=progress.line,
                progress=showing(progress, engine),
                **options,
            )

    tell_outcome(answer, replayed, output, clock.seconds)
