"""``blendplan compare``: several policies on the same requests."""

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.headline import headline
from blendplan.cli.job import Job, planning
from blendplan.cli.names import Names
from blendplan.cli.planning_options import POLICIES
from blendplan.cli.progress import Progress


@click.command("compare")
@click.option(
    "--policies",
    default=",".join(POLICIES),
    show_default=True,
    type=Names("policy", POLICIES),
    metavar="A,B,...",
    help="What to compare.",
)
@planning
@answering
def command(job: Job, policies: tuple[str, ...], answer: Answer) -> None:
    """Compare policies on the same requests.

    All run on the simulated engine. Where a request states its output length, the engine generates
    that many tokens, whatever the policy was told to expect.

    \b
    blendplan compare requests.jsonl --gpu a100-80g --policies fcfs,dfs,blendserve
    """
    job.check()
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line) as clock:
        from blendplan.comparison import compare
        from blendplan.planner import describe

        requests = job.read(progress)
        result = compare(requests, policies=policies, progress=progress.report, **job.wish)
    described = {
        name: describe(
            result.prepared,
            result.target,
            name,
            outcome.run,
            outcome.bound,
            seed=job.wish["seed"],
        )
        for name, outcome in result.outcomes.items()
    }
    for note in job.notes(described[policies[0]]):
        answer.remark(note)

    from blendplan.report.summary import comparison

    by_policy = {
        name: headline(metadata) | {"plan_wall_s": result.outcomes[name].plan_wall_s}
        for name, metadata in described.items()
    }
    values = {"policies": by_policy, "rejected": job.rejected(), "compile_s": clock.seconds}
    answer.give(values, lambda: comparison(by_policy))
