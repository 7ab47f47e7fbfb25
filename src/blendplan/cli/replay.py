"""``blendplan replay``: run a plan on an engine."""

from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.names import Name
from blendplan.cli.planning_options import FILE
from blendplan.cli.progress import Progress

ENGINES = ("sim",)


@click.command("replay")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "--engine",
    default="sim",
    show_default=True,
    type=Name("engine", ENGINES),
    metavar="NAME",
    help=f"What runs the requests: {', '.join(ENGINES)}.",
)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where the results go (JSONL).")
@answering
def command(plan_file: Path, engine: str, output: Path | None, answer: Answer) -> None:
    """Run a plan on an engine.

    The requests go in the order and under the memory partition of PLAN. The engine sim simulates the steps of a real one on the GPU that the plan was made for.
    """
    check_destinations([output], inputs=[plan_file])
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line) as clock:
        from blendplan.engines import replay
        from blendplan.planfile import Plan

        plan = Plan.read(plan_file)
        outcome: Any = replay(plan, engine=engine, output=output, progress=progress.report)
    values = {"plan": str(plan_file), "engine": engine, "compile_s": clock.seconds} | outcome
    answer.tell(values, lambda: str(values))
