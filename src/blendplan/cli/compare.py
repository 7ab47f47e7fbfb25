"""``blendplan compare``: several policies on the same requests."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blendplan.cli.answer import Answer, answering, headline
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.job import Job, planning
from blendplan.cli.names import NameOption, Names
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress
from blendplan.policy.registry import POLICIES

if TYPE_CHECKING:
    from blendplan.planning.compare import Comparison


@click.command("compare")
@click.option(
    "--policies",
    cls=NameOption,
    type=Names("policy", POLICIES),
    metavar="A,B,...",
    help="Policies to compare.  [default: {names}]",
)
@planning()
@click.option(
    "--html",
    type=FILE,
    metavar="FILE",
    help="Write a report with pictures as one HTML file; needs the extra 'plots'.",
)
@click.option(
    "--png",
    type=FILE,
    metavar="DIR",
    help="Write each picture as a PNG file; needs the extra 'plots'.",
)
@answering
def command(
    job: Job, policies: tuple[str, ...] | None, html: Path | None, png: Path | None, answer: Answer
) -> None:
    """Compare policies on the same requests.

    All run on the simulated engine. Where a request states its output length, the engine generates
    that many tokens, whatever the policy was told to expect.

    \b
    blendplan compare requests.jsonl --gpu a100-80g --policies fcfs,dfs,blendserve
    blendplan compare requests.jsonl --gpu a100-80g --html report.html
    """
    policies = policies or tuple(POLICIES)
    if html is not None:
        from blendplan.report.drawing import require_matplotlib

        require_matplotlib()
    if png is not None:
        from blendplan.report.figures_png import check_png_folder

        check_png_folder(png)
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=policies) as clock,
    ):
        job.check(html)
        from blendplan.planning.compare import compare
        from blendplan.planning.describe import describe

        read = job.read(progress)
        requests = read.requests
        result = compare(requests, policies=policies, progress=progress.report, **job.options)
        compile_s = clock.seconds
        if html is not None or png is not None:
            progress.stage("drawing")
            _draw(result, job, html, png)
    described = {
        name: describe(result.prepared, result.target, name, outcome.prediction)
        for name, outcome in result.outcomes.items()
    }
    for note in job.notes(read, described[policies[0]]):
        answer.remark(note)

    from blendplan.report.summary import comparison

    by_policy = {
        name: headline(metadata) | {"plan_wall_s": result.outcomes[name].plan_wall_s}
        for name, metadata in described.items()
    }
    values = {
        "policies": by_policy,
        "verdict": asdict(result.verdict),
        "rejected": requests.rejected,
        "compile_s": compile_s,
    }
    answer.give(values, lambda shown: comparison(shown["policies"], result.verdict.sentences))


def _draw(result: "Comparison", job: Job, html: Path | None, png: Path | None) -> None:
    from blendplan.report.figures import draw_figures

    figures = draw_figures(result, job.name)
    if html is not None:
        from blendplan.report.html import write_html

        write_html(figures, html)
    if png is not None:
        from blendplan.report.figures_png import write_pngs

        write_pngs(figures, png)
