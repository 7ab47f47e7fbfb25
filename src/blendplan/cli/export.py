"""``blendplan export``: a plan's order for any other engine or service."""

from pathlib import Path

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.destination import check_destinations
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import within


@click.command("export")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE",
    help="Where the requests go (JSONL, also .gz and .zst); - is standard output.",
)
@click.option(
    "--replica",
    type=within("replica"),
    metavar="I",
    help="Which part of a plan for several replicas to write, counted from 0.",
)
@click.option(
    "--shards",
    type=within("shards"),
    metavar="N",
    help="Write N files, each with a run of neighbours: FILE-00000-of-0000N.",
)
@click.option(
    "--priority",
    is_flag=True,
    help="Give each body its place in the order as its priority, lowest first.",
)
@click.option("--model", metavar="NAME", help="Model for bodies that name none.")
@answering
def command(
    plan_file: Path,
    output: Path,
    replica: int | None,
    shards: int | None,
    priority: bool,
    model: str | None,
    answer: Answer,
) -> None:
    """Write the requests of a plan in its order.

    They are OpenAI batch lines, for any engine or service that takes a batch file: those of the
    request file as they came, any other as the batch line that means the same. Files at the output
    path are replaced when all is written.

    \b
    blendplan export plan.arrow -o ordered.jsonl
    blendplan export plan.arrow -o ordered.jsonl.gz --shards 8
    blendplan export plan.arrow -o - --priority | head
    """
    to_output = str(output) == "-"
    if to_output and shards is not None:
        raise click.UsageError("--shards are several files; give -o FILE, not -")
    if to_output and answer.as_json:
        raise click.UsageError("--json and the requests cannot both go to standard output")
    with Progress(quiet=answer.quiet or to_output) as progress:
        from blendplan.planfile.export import export, keep_sources, shard_paths
        from blendplan.planfile.folder import PlanFolder
        from blendplan.planfile.opened import open_plan, the_part

        if not to_output:
            outputs = [output] if shards is None else shard_paths(output, shards)
            check_destinations(outputs, inputs=[plan_file])
        progress.stage(f"reading {plan_file.name}")
        opened = open_plan(plan_file)
        if isinstance(opened, PlanFolder) and not to_output:
            for path in outputs:
                keep_sources(path, {source["sha256"] for source in opened.sources})
        plan = the_part(opened, replica, "export each by itself")
        progress.stage(f"writing {output.name}")
        files = export(plan, output, shards=shards, priority=priority, model=model)
    if to_output:
        return
    values = {"requests": plan.requests, "files": [str(file) for file in files]}
    answer.tell(values, lambda shown: _line(shown["requests"], shown["files"]))


def _line(requests: int, files: list[str]) -> str:
    where = files[0] if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1]}"
    return f"{requests:,} requests written to {where}"
