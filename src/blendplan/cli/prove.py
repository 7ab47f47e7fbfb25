"""``blendplan prove``: measure on a real engine what plans are made of and what they gain."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.compilation import compilation_clock
from blendplan.cli.key_values import key_values
from blendplan.cli.loading import load_option
from blendplan.cli.names import CatalogueName, Name
from blendplan.cli.options import FILE, EngineFlags, engine_option
from blendplan.cli.progress import Progress
from blendplan.cli.quote_options import Several
from blendplan.cli.ranges import within
from blendplan.errors import BlendplanError
from blendplan.proving.parts.registry import PARTS


def _parts(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in PARTS if name in names)


@click.command("prove", cls=EngineFlags)
@engine_option(required=True)
@click.option(
    "--model",
    required=True,
    type=CatalogueName("model", "models"),
    metavar="NAME",
    help="Model, or a folder with its config.json; it runs with random weights.",
)
@load_option
@click.option(
    "--gpu",
    type=CatalogueName("GPU", "gpus"),
    metavar="NAME",
    help="GPU of this machine; without it, everything runs on the CPU.",
)
@click.option(
    "-o",
    "--output",
    default=Path("proof"),
    show_default=True,
    type=FILE,
    metavar="DIR",
    help="Folder for all results; one that is there is continued.",
)
@click.option(
    "--minutes",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="How long it may take; what is left is measured by the same command again.",
)
@click.option(
    "--parts",
    default=tuple(PARTS),
    callback=_parts,
    type=Several(Name("part", tuple(PARTS))),
    metavar="NAME,...",
    help=f"What to measure: {', '.join(PARTS)}.  [default: all]",
)
@click.option(
    "--repeats",
    default=3,
    show_default=True,
    type=within("repeats"),
    metavar="N",
    help="How often each order runs.",
)
@click.option(
    "--requests",
    type=click.IntRange(2, 1_000_000),
    metavar="N",
    help="Requests of each workload.  [default: as many as the time is enough for]",
)
@click.option(
    "--kv-tokens",
    type=within("kv_tokens"),
    metavar="N",
    help="Size of the KV cache.  [default: what the engine has; 8192 on a CPU]",
)
@click.option(
    "--max-num-seqs",
    type=within("max_num_seqs"),
    metavar="N",
    help="Maximum number of requests that run at once.  [default: 256; 32 on a CPU]",
)
@click.option(
    "--max-num-batched-tokens",
    type=Several(within("max_num_batched_tokens")),
    metavar="N,...",
    help="Maximum numbers of tokens in one step, of which each order gets the best.  [default: "
    "2048,8192; 256,512 on a CPU]",
)
@click.option(
    "--block-size",
    type=within("block_size"),
    metavar="N",
    help="Tokens in one block of the KV cache.  [default: the engine's]",
)
@click.option(
    "--max-model-len",
    default=8192,
    show_default=True,
    type=within("max_model_len"),
    metavar="N",
    help="Longest context, prompt and output together.",
)
@click.option(
    "--tp",
    default=1,
    show_default=True,
    type=within("tp"),
    metavar="N",
    help="GPUs that share the model (tensor parallel).",
)
@click.option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="Argument of the engine by its own name, with its value as JSON. May be given several "
    "times.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=within("seed"),
    metavar="N",
    help="Seed of the workloads.",
)
@answering
def command(
    engine: str,
    gpu: str | None,
    output: Path,
    parts: tuple[str, ...],
    max_num_batched_tokens: tuple[int, ...] | None,
    answer: Answer,
    **options: Any,
) -> None:
    """Measure on this machine what plans gain, and why.

    Kernels and steps are measured and held against the cost model; then the same requests run in
    input order, depth-first, and as two policies have them, in turn, each with the step size that
    suits it best. What contradicts the model is told first. Without --gpu it is all done on the
    CPU, with a small model: the scheduling is real, the times are not those of a GPU.

    \b
    blendplan prove --engine vllm --model llama-3.1-8b --load NAME --gpu h100-80g -o proof
    blendplan prove --engine vllm --model DIR --minutes 10 -o proof
    blendplan calibrate --proof proof -o profile.toml
    """
    with Progress(quiet=answer.quiet) as progress, compilation_clock(progress.line):
        from blendplan.proving.prove import prove
        from blendplan.proving.settings import proof_settings

        settings = proof_settings(engine, gpu=gpu, batched_tokens=max_num_batched_tokens, **options)
        values = prove(
            settings, output, parts=parts, remark=progress.line, progress=progress.report
        )
        said = {**values, "folder": str(output)}
        if find_spec("matplotlib") is not None:
            progress.stage("writing the page")
            from blendplan.report.proof_page import write_proof_page

            page = output / "proof.html"
            write_proof_page(values, page)
            said["page"] = str(page)
    from blendplan.report.proof import proof

    answer.tell(said, proof)
    failed = [name for name, part in values["parts"].items() if part["state"] == "failed"]
    if failed:
        raise BlendplanError(f"{failed[0]} failed: {values['parts'][failed[0]]['why']}")
    if any(part["state"] == "left" for part in values["parts"].values()):
        answer.remark("the time was over; the same command goes on with what is left")
