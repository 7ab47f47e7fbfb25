"""``blendplan sample``: run a few requests for real, to learn how long outputs are."""

from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.destination import check_destinations
from blendplan.cli.names import Name
from blendplan.cli.options import FILE, EngineFlags, engine_option, engine_options
from blendplan.cli.outcome import resumable, showing, tell_outcome
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import Share, within
from blendplan.cli.shaping import shaping


@click.command("sample", cls=EngineFlags)
@click.argument("requests_file", metavar="REQUESTS", type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE",
    help="Where the results go (JSONL, or .parquet).",
)
@click.option(
    "--fraction",
    default=0.01,
    show_default=True,
    type=Share(above_zero=True),
    metavar="SHARE",
    help="Share of the requests to run; at least 200 of them, or all.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=within("seed"),
    metavar="N",
    help="Seed for the choice of requests.",
)
@engine_option(required=True)
@click.option(
    "--on-error",
    default="fail",
    show_default=True,
    type=Name("way to treat bad lines", ("fail", "skip")),
    metavar="fail|skip",
    help="Stop at a bad request before any work is done, or sample from the rest.",
)
@shaping
@engine_options
@answering
def command(
    requests_file: str,
    output: Path,
    fraction: float,
    seed: int,
    engine: str,
    on_error: str,
    shape: dict[str, Any],
    answer: Answer,
    **options: Any,
) -> None:
    """Run a sample of the requests in REQUESTS on an engine.

    REQUESTS is a file, a folder, a glob, an address, or - for standard input, as for plan.

    At least 200 requests, or all. The sample is spread over the kinds of requests that prompts'
    words, lengths and shared prefixes tell apart, rare ones more densely. Its results tell `plan`
    how long outputs are, and `replay` takes over its answers: nothing runs twice.
    It runs within the engine's own limits, and nothing is planned for it. vLLM and SGLang need
    --model.

    \b
    blendplan sample requests.jsonl --engine vllm --model MODEL -o sample.jsonl
    blendplan plan requests.jsonl --gpu h100-80g --lengths sample:sample.jsonl -o plan.arrow
    blendplan replay plan.arrow --engine vllm --model MODEL --already sample.jsonl -o results.jsonl
    """
    check_destinations(
        [output, options["step_log"], options["request_log"]], inputs=[Path(requests_file)]
    )
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line) as clock:
        from blendplan.replaying.sample_run import run_sample, sampled_total
        from blendplan.requests.read import read_requests

        model = options["model"]
        progress.stage(f"reading {Path(requests_file).name}")
        requests = read_requests(
            requests_file,
            model_dir=Path(model) if model and Path(model).is_dir() else None,
            on_error="skip" if on_error == "skip" else "fail",
            progress=progress.advance,
            **shape,
        )
        progress.stage("choosing the sample")
        with resumable(output):
            replayed = run_sample(
                requests,
                engine,
                output,
                fraction=fraction,
                seed=seed,
                remark=progress.line,
                progress=showing(progress, engine),
                **options,
            )
        done = replayed.tally.finished + replayed.tally.already_done
        total = sampled_total(requests, output) if done and not replayed.interrupted else None
    tell_outcome(answer, replayed, output, clock.seconds, total)
