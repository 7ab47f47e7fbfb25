"""``blendplan quote``: which machine, how long, and what it costs."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.command_line import plan_command
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.durations import window_options
from blendplan.cli.job import Job, planning
from blendplan.cli.options import FILE, MACHINE, policy_option
from blendplan.cli.progress import Progress
from blendplan.cli.quote_options import price_options, prices_of, several_values
from blendplan.cli.ranges import within
from blendplan.cli.tail_options import tail_options
from blendplan.errors import BlendplanError
from blendplan.planning.quoting.listed import LISTED

if TYPE_CHECKING:
    from blendplan.cli.job import JobRequests
    from blendplan.planning.quote import Quote
    from blendplan.planning.quoting.combinations import Combination


@click.command("quote")
@several_values
@planning()
@policy_option
@tail_options
@price_options
@window_options("Time that the run may take, such as 6h or 1h30min: finds the cheapest that does.")
@click.option(
    "--simulate",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Requests of an engine on which combinations are compared, where it has more; the best "
    "are planned whole.",
)
@click.option(
    "--processes",
    type=within("processes"),
    metavar="N",
    help="Processes of this machine that plan at the same time.  [default: one a core, at most 8]",
)
@click.option(
    "--html",
    type=FILE,
    metavar="FILE",
    help="Write a report with pictures as one HTML file; needs the extra 'plots'.",
)
@answering
@click.pass_context
def command(
    ctx: click.Context,
    job: Job,
    policy: str,
    trade: dict[str, Any],
    prices_file: str | None,
    given_prices: dict[str, float],
    within_s: float | None,
    chance: float,
    simulate: int,
    processes: int | None,
    html: Path | None,
    answer: Answer,
) -> None:
    """Say which machine to rent, how long it takes and what it costs.

    Plans them for every combination of the values given, and prints those that fit, cheapest first
    (fastest first without prices), with the plan command of the best.

    \b
    blendplan quote requests.jsonl --model llama-3.1-70b --gpu a100-80g,h100-80g,l40s \\
        --tp 1,2,4,8 --replicas 1,2,4 --price a100-80g=1.79 --price h100-80g=2.49
    blendplan quote requests.jsonl --gpu h100-80g --replicas 1,2,4,8 --within 6h
    blendplan quote requests.jsonl --gpu l4 --max-num-batched-tokens 1024,2048,4096,8192
    """
    started = perf_counter()
    with (
        Progress(quiet=answer.quiet) as progress,
        compilation_clock(progress.line, policies=[policy]) as clock,
    ):
        if html is not None:
            from blendplan.report.drawing import require_matplotlib

            require_matplotlib()
        from blendplan.planning.quote import quote

        prices = prices_of(job.options["gpu"], prices_file, given_prices)
        roomiest = _roomiest(job)
        rejects = job.rejects if job.on_error == "skip" else None
        check_destinations((html, rejects), inputs=job.paths)
        one = replace(job, options={**job.options, **roomiest.settings})
        read = one.read(progress)
        quoted = quote(
            read.requests,
            prices=prices,
            within_s=within_s,
            chance=chance,
            simulate=simulate,
            processes=processes,
            policy=policy,
            progress=progress.report,
            **trade,
            **job.options,
        )
    from blendplan.report.quoted import quote_picture, quote_values

    values = quote_values(quoted)
    best = None if quoted.winner is None else quoted.offers[quoted.winner].settings
    values |= {
        "plan_command": None if best is None else plan_command(ctx, best, "plan.arrow"),
        "rejected": read.requests.rejected,
        "quote_wall_s": perf_counter() - started - clock.seconds,
        "compile_s": clock.seconds,
    }
    if html is not None:
        from blendplan.report.quote_html import write_quote_html

        write_quote_html(quoted, html, job.name, values["plan_command"])
    for note in _notes(job, read, quoted):
        answer.remark(note)
    answer.give(values, quote_picture)
    if best is not None and not answer.as_json:
        click.echo(values["plan_command"])


def _roomiest(job: Job) -> "Combination":
    """The combination that can run the longest requests; the requests are read for it.

    Raises:
        BlendplanError: none fits, or the models do not agree on what a token is.
    """
    from blendplan.planning.quote import checked_lists, none_fits
    from blendplan.planning.quoting.combinations import combinations

    _check_tokenizers(job.options["model"])
    listed = checked_lists({name: job.options[name] for name in LISTED})
    engine = {name: job.options[name] for name in MACHINE if name not in LISTED}
    fitting, unfit = combinations(listed, engine)
    if not fitting:
        raise none_fits(unfit)
    return max(fitting, key=lambda one: min(one.target.longest_request, one.target.max_model_len))


def _check_tokenizers(models: tuple[str, ...]) -> None:
    """Prompts are read once, so all models must make the same tokens of them."""
    from blendplan.requests.fingerprint import tokenizer_fingerprint

    folders = [Path(model) for model in models if Path(model).is_dir()]
    found = [tokenizer_fingerprint(folder) for folder in folders]
    if len(folders) < len(models):
        found.append(None)
    for place, other in enumerate(found):
        if other != found[0]:
            name = folders[place] if place < len(folders) else "the models that are named"
            raise BlendplanError(
                f"{folders[0]} and {name} make different tokens of a prompt; quote them one by one"
            )


def _notes(job: Job, read: "JobRequests", quoted: "Quote") -> list[str]:
    """What the user should know, one line each."""
    plain = {
        "cost_model": {"note": ""},
        "lengths": {"note": "", "estimated_prompts": read.requests.estimated_tokens},
    }
    return [*job.notes(read, plain), *quoted.notes]
