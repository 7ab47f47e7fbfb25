"""A synthetic request file from traces, with a given density and prefix sharing.

python benchmarks/synth.py trace1 -o trace1.parquet --traces DIR
"""

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blendplan.cli.answer import Answer, answering
from blendplan.cli.destination import check_destinations
from blendplan.cli.names import CatalogueName, Name
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress
from blendplan.errors import BlendplanError

_DEFAULT_REQUESTS = 400_000
_PAPER_TRACES = ("trace1", "trace2", "trace3", "trace4")


@click.command("synth")
@click.argument("trace", required=False, metavar="[TRACE]", type=Name("workload", _PAPER_TRACES))
@click.option("-o", "--output", required=True, type=FILE, metavar="FILE", help="Where it goes.")
@click.option(
    "--traces",
    required=True,
    envvar="BLENDPLAN_DATA",
    show_envvar=True,
    type=FILE,
    metavar="DIR",
    help="Folder with the trace files, or one with a folder 'traces' in it.",
)
@click.option("--compute", metavar="NAME", help="Compute-heavy trace, or a Parquet file.")
@click.option("--memory", metavar="NAME", help="Memory-heavy trace, or a Parquet file.")
@click.option(
    "--density",
    type=float,
    metavar="X",
    help="Target compute density, by the paper's formula; needs --memory.",
)
@click.option(
    "--sharing", type=float, metavar="Y", help="Target prefix sharing; adds MMLU requests."
)
@click.option(
    "--requests",
    default=_DEFAULT_REQUESTS,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="How many requests.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="S",
    help="Decides rows, token ids and input order.",
)
@click.option(
    "--gpu",
    default="a100-80g",
    show_default=True,
    type=CatalogueName("GPU", "gpus"),
    metavar="NAME",
    help="GPU that the density refers to.",
)
@click.option(
    "--model",
    default="llama-3.1-8b",
    show_default=True,
    type=CatalogueName("model", "models"),
    metavar="NAME",
    help="Model that the density refers to.",
)
@click.option(
    "--tp",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="GPUs that share the model (tensor parallel).",
)
@answering
def command(
    trace: str | None,
    output: Path,
    traces: Path,
    compute: str | None,
    memory: str | None,
    density: float | None,
    sharing: float | None,
    requests: int,
    seed: int,
    gpu: str,
    model: str,
    tp: int,
    answer: Answer,
) -> None:
    """Make a synthetic request file.

    It has the given compute density and prefix sharing. TRACE is trace1, trace2, trace3 or
    trace4, the workloads of the BlendServe paper; or say what to mix. Traces with lengths are
    burstgpt, sharegpt, azure-code, azure-conv, wildchat and mmlu (compute-heavy), bwb, openvid and
    openvid-clips (memory-heavy). Token ids are random, prefixes are shared as in the source, output
    lengths are known, and the order is a shuffle. The file is Parquet, or JSONL where its name ends
    so.

    \b
    python benchmarks/synth.py trace1 -o trace1.parquet --traces DIR
    python benchmarks/synth.py --compute sharegpt --memory bwb --density 1 --sharing 0.2 \\
        --requests 50000 -o mixed.parquet --traces DIR
    """
    own = (compute, memory, density, sharing)
    if (trace is None) == (compute is None):
        raise click.UsageError("give either a TRACE by name or --compute NAME")
    if trace is not None and any(value is not None for value in own):
        raise click.UsageError(f"{trace} fixes the mixture; leave out --memory and its like")
    check_destinations([output])
    with Progress(quiet=answer.quiet) as progress:
        from benchmarks.synthetic.prompts import write_prompts
        from benchmarks.synthetic.workloads import Recipe, mix, recipe

        from blendplan.cost.datasheet import datasheet_cost
        from blendplan.hardware.lookup import gpu_spec, model_spec
        from blendplan.requests.write import write_requests

        chosen = recipe(trace) if trace else Recipe(compute or "", memory, density, sharing)
        progress.stage("mixing")
        costs = datasheet_cost(model_spec(model), gpu_spec(gpu), tp)
        mixture = mix(chosen, traces, requests=requests, seed=seed, costs=costs)
        made = write_prompts(mixture, seed)
        progress.stage(f"writing {output.name}")
        write_requests(made, output)
    values = {
        "requests": len(made),
        "sources": mixture.counts,
        "density": mixture.density,
        "prefix_sharing": {"optimal": mixture.sharing},
        "prompt_tokens": len(made.token_ids),
        "output_tokens": int(made.output_tokens.sum(dtype="int64")),
        "seed": seed,
        "gpu": gpu,
        "model": model,
        "output": str(output),
    }

    def rows() -> dict[str, str]:
        sources = ", ".join(f"{count:,} {name}" for name, count in mixture.counts.items())
        return {
            "requests": f"{len(made):,}: {sources}",
            "density": f"{mixture.density:.3f} compute time over memory time",
            "prefix sharing": f"{mixture.sharing:.1%} of the prompt tokens at best",
            "file": str(output),
        }

    from blendplan.report.summary import facts

    answer.tell(values, lambda _: facts(rows()))


if __name__ == "__main__":
    try:
        command()
    except BlendplanError as error:
        sys.exit(f"error: {error}")
