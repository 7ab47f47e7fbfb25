"""``blendplan calibrate``: a GPU profile from measurements."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blendplan.cli.answer import Answer, answering
from blendplan.cli.destination import check_destinations
from blendplan.cli.names import CatalogueName
from blendplan.cli.options import FILE
from blendplan.cli.progress import Progress
from blendplan.cli.ranges import within

if TYPE_CHECKING:
    from blendplan.hardware.gpu import GpuSpec


@click.command("calibrate")
@click.option(
    "--kernels",
    type=FILE,
    metavar="DIR",
    help="Fit operator models to tables of kernel times in this folder.",
)
@click.option(
    "--steps",
    type=FILE,
    metavar="FILE",
    help="Fit the price of a step to this log of engine steps, a Parquet file.",
)
@click.option(
    "--gpu",
    type=CatalogueName("GPU", "gpus"),
    metavar="NAME",
    help="GPU that was measured, or a TOML file that describes it. With --steps, whose datasheet "
    "goes into the profile.",
)
@click.option(
    "--model",
    default="llama-3.1-8b",
    show_default=True,
    type=CatalogueName("model", "models"),
    metavar="NAME",
    help="Model that the steps are of; the profile holds for it alone.",
)
@click.option(
    "--tp",
    default=1,
    show_default=True,
    type=within("tp"),
    metavar="N",
    help="GPUs that shared the model in the steps.",
)
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="FILE", help="Where the profile goes."
)
@answering
def command(
    kernels: Path | None,
    steps: Path | None,
    gpu: str | None,
    model: str,
    tp: int,
    output: Path,
    answer: Answer,
) -> None:
    """Fit the cost model to measurements.

    The profile, a TOML file, is used as --gpu FILE. Kernel times are tables as
    python -m blendplan.proving.gpu writes them. A step log is what 'blendplan replay --step-log FILE' writes; of other engines it
    has the columns prefill_tokens, decode_tokens, kv_tokens_read, sequences and time_s, and may
    have prefill_pairs and end_s.

    \b
    blendplan calibrate --kernels DIR --gpu h200 -o profile.toml
    blendplan calibrate --steps steps.parquet --model DIR -o profile.toml
    """
    if (kernels is None) == (steps is None):
        raise click.UsageError("give either --kernels DIR or --steps FILE")
    if kernels is not None and gpu is None:
        raise click.UsageError("--kernels needs --gpu NAME, the GPU whose rows to use")
    if output.suffix != ".toml":
        raise click.UsageError(f"a profile's name ends in .toml, so that --gpu knows it: {output}")
    check_destinations([output], inputs=[steps])
    with Progress(quiet=answer.quiet) as progress:
        from blendplan.hardware.lookup import gpu_spec
        from blendplan.hardware.profile import write_profile

        base = gpu_spec(gpu) if gpu is not None else None
        if kernels is not None and base is not None:
            profile, fitted = _from_kernels(kernels, base, progress)
        else:
            assert steps is not None
            profile, fitted = _from_steps(steps, base, output.stem, model, tp, progress)
        write_profile(profile, output)
    values = {"profile": str(output), "gpu": profile.name, **fitted}
    from blendplan.report.calibrated import calibrated

    answer.tell(values, calibrated)


def _from_kernels(
    folder: Path, base: "GpuSpec", progress: Progress
) -> tuple["GpuSpec", dict[str, Any]]:
    from blendplan.cost.calibration.from_kernels import calibrate_kernels

    profile, reports = calibrate_kernels(folder, base, progress=progress.report)
    fits = [
        {
            "operator": report.operator,
            "dtype": report.dtype,
            "kernel": report.kernel,
            "rows": report.rows,
            "mape": 100.0 * report.error_share,
        }
        for report in reports
    ]
    return profile, {"fits": fits}


def _from_steps(
    path: Path, base: "GpuSpec | None", name: str, model: str, tp: int, progress: Progress
) -> tuple["GpuSpec", dict[str, Any]]:
    from blendplan.cost.calibration.from_steps import (
        calibrate_steps,
        read_step_log,
        unknown_machine,
    )
    from blendplan.hardware.lookup import model_spec

    progress.stage(f"reading {path.name}")
    log = read_step_log(path)
    profile = calibrate_steps(log, base or unknown_machine(name), model_spec(model), tp)
    return profile, {"steps": dict(profile.fitted["steps"])}
