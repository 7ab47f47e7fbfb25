"""``blendplan plan``: from a request file to a plan file."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering, headline
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.job import Job, planning
from blendplan.cli.large import plan_into_folder
from blendplan.cli.options import FILE, policy_option
from blendplan.cli.part_options import PartOptions, part_of_job
from blendplan.cli.partners import DependentOption
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import Share, within
from blendplan.cli.tail_options import tail_options
from blendplan.printable import printable

if TYPE_CHECKING:
    from blendplan.requests.columns import Requests

_DEFAULT_FRACTION = 0.01
# Of the first request of a dry run.
_SHOWN_CHARACTERS = 600
_ENDS = tuple({"/", os.sep})


@click.command("plan")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE|DIR/",
    help="Where the plan goes; a folder, for requests that need not fit into memory, ends in /.",
)
@policy_option
@planning()
@tail_options
@part_of_job
@click.option(
    "--sample-out",
    type=FILE,
    metavar="FILE",
    help="Instead of planning, write a sample of the requests; run it, and give its results to "
    "--lengths sample:FILE.",
)
@click.option(
    "--fraction",
    cls=DependentOption,
    needs="--sample-out FILE",
    type=Share(above_zero=True),
    metavar="SHARE",
    help=f"Share of the requests that --sample-out takes, at least 200 of them.  "
    f"[default: {_DEFAULT_FRACTION}]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Plan, say what the plan comes to and show the first request, but write nothing.",
)
@click.option(
    "--processes",
    type=within("processes"),
    metavar="N",
    help="Processes of this machine that plan into a folder.  [default: one a core, at most 8]",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Plan into a folder on a Ray cluster: auto for the one of this machine, local for one of "
    "its own, or an address.",
)
@answering
def command(
    job: Job,
    part: PartOptions,
    trade: dict[str, Any],
    policy: str,
    sample_out: Path | None,
    fraction: float | None,
    output: str | None,
    dry_run: bool,
    processes: int | None,
    ray: str | None,
    answer: Answer,
) -> None:
    """Plan the requests of files: one plan file, or a folder.

    REQUESTS are files of OpenAI batch lines or plain lines (JSONL, also .gz and .zst), Parquet,
    Arrow, CSV or JSON, whose rows may be requests or any data (--prompt-column, --template);
    folders, globs, or addresses of any of these (s3://, gs://, file://); or - for standard input. A
    file at the output path is replaced when the plan is complete.

    With a folder as output, they may be larger than memory together. The folder gets a plan file
    for each replica.

    \b
    blendplan plan requests.jsonl --gpu a100-80g -o plan.arrow
    blendplan plan texts.parquet --template 'To French: {text}' --gpu h200 -o plan.arrow
    blendplan plan requests.jsonl --gpu h200 --sample-out sample.jsonl
    blendplan plan requests.jsonl --gpu h200 --lengths sample:results.jsonl -o plan.arrow
    blendplan plan requests.jsonl --gpu h200 --within 6h -o tonight.arrow
    blendplan plan requests.jsonl --gpu h200 --already tonight.arrow -o tomorrow.arrow
    blendplan plan 's3://bucket/requests/*.parquet' --gpu h100-80g --replicas 32 -o plan/
    """
    if output is not None and output.endswith(_ENDS):
        if sample_out is not None:
            raise click.UsageError(
                "a sample is taken of what fits into memory; leave the folder out"
            )
        if dry_run or "limit" in job.shape:
            raise click.UsageError("--limit and --dry-run try out a plan file; give -o FILE")
        if job.dedupe:
            raise click.UsageError("--dedupe looks through requests in memory; give -o FILE")
        if "-" in job.files:
            raise click.UsageError("standard input is planned into one file: give -o FILE")
        if job.engine is not None:
            raise click.UsageError(
                "--engine looks through requests in memory; leave it out for a folder"
            )
        part.refuse("leave out the / at the end of -o")
        if trade["tail"] is not None:
            raise click.UsageError("--tail plans into a file; leave out the / at the end of -o")
        plan_into_folder(job, policy, Path(output), processes, ray, answer)
        return
    if processes is not None or ray is not None:
        raise click.UsageError("--processes and --ray plan into a folder: end -o DIR with /")
    if sample_out is not None:
        if output is not None:
            raise click.UsageError("--sample-out writes no plan; leave out --output")
        if dry_run or trade["tail"] is not None:
            raise click.UsageError("--dry-run and --tail plan; leave out --sample-out")
        part.refuse("leave out --sample-out")
        _sample(job, sample_out, fraction or _DEFAULT_FRACTION, answer)
        return
    if output is None and not dry_run:
        raise click.UsageError("missing option '-o FILE': where the plan goes")
    if dry_run and job.stated_rejects is not None:
        raise click.UsageError("--dry-run writes nothing; leave out --rejects")
    if dry_run:
        job = replace(job, stated_rejects=Path(os.devnull))
    _plan(job, part, trade, policy, None if dry_run or output is None else Path(output), answer)


def _plan(
    job: Job,
    part: PartOptions,
    trade: dict[str, Any],
    policy: str,
    output: Path | None,
    answer: Answer,
) -> None:
    started = perf_counter()
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=[policy]) as clock,
    ):
        job.check(output)
        from blendplan.planning.planner import plan

        read = job.read(progress)
        requests = part.left(read.requests)
        planned = plan(
            requests, policy=policy, progress=progress.report, **trade, **part.window, **job.options
        )
        planned = part.covered(planned, read.requests, requests).saying(serving=read.serving)
        if output is not None:
            progress.stage(f"writing {output.name}")
            planned.write(output)
    for note in job.notes(read, planned.metadata):
        answer.remark(note)

    from blendplan.report.quantities import estimated
    from blendplan.report.summary import facts, headline_rows

    total = planned.metadata["lengths"]["total"]
    values = headline(planned.metadata) | {
        "total_output_tokens": total,
        "output": None if output is None else str(output),
        **({} if output is not None else {"first_request": _first_request(requests)}),
        "rejected": requests.rejected,
        "repeats": planned.metadata.get("repeats"),
        "plan_wall_s": perf_counter() - started - clock.seconds,
        "compile_s": clock.seconds,
    }
    sampled = {} if total is None else {"output tokens": estimated(total)}
    answer.tell(
        values,
        lambda shown: facts(headline_rows(shown) | sampled | _written(shown)),
    )


def _written(shown: Mapping[str, Any]) -> dict[str, str]:
    """Where the plan went, or what would have been in it."""
    if shown["output"] is not None:
        return {"plan file": shown["output"]}
    first = printable(json.dumps(shown["first_request"], ensure_ascii=False))
    if len(first) > _SHOWN_CHARACTERS:
        first = f"{first[:_SHOWN_CHARACTERS]}... (--json shows all of it)"
    return {"plan file": "none, a dry run", "first request": first}


def _first_request(requests: "Requests") -> dict[str, Any]:
    """The first request of the file as the batch line that it amounts to."""
    from blendplan.planfile.batch_lines import batch_line

    body = None if requests.bodies is None else requests.bodies[0].as_py()
    line = batch_line(
        requests.ids[0].as_py(),
        body,
        None if requests.estimated_tokens else requests.prompt(0),
        answers=1 if requests.answers is None else int(requests.answers[0]),
        max_tokens=None if requests.max_tokens[0] < 0 else int(requests.max_tokens[0]),
    )
    found: dict[str, Any] = json.loads(line)
    return found


def _sample(job: Job, sample_out: Path, fraction: float, answer: Answer) -> None:
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line):
        job.check(sample_out)
        from blendplan.lengths.sample import choose_sample
        from blendplan.lengths.strata import strata_of
        from blendplan.lengths.totals import expected_error
        from blendplan.lengths.weights import sample_weights
        from blendplan.requests.write import write_requests
        from blendplan.tree.build import build_tree

        requests = job.read(progress).requests
        progress.stage("choosing the sample")
        tree = build_tree(requests)
        strata = strata_of(requests, tree)
        rows = choose_sample(tree, requests, fraction, job.options["seed"], strata)
        error = expected_error(sample_weights(requests, tree, rows, strata))
        write_requests(requests, sample_out, rows)
    values = {
        "requests": len(requests),
        "sampled": len(rows),
        "expected_error": error,
        "sample_out": str(sample_out),
    }
    sure = f"; expect the total of the output tokens to within {error:.0%}" if error else ""
    sure = sure.replace("%", " %")
    answer.tell(
        values,
        lambda shown: (
            f"{len(rows):,} of {len(requests):,} requests written to {shown['sample_out']}; "
            f"run them, then plan with --lengths sample:RESULTS{sure}"
        ),
    )
