"""``blendplan calibrate``: a GPU profile from measurements."""

from collections.abc import Mapping, Sequence
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
    from blendplan.cost.calibration.from_kernels import FitReport
    from blendplan.hardware.gpu import GpuSpec

DEFAULT_MODEL = "llama-3.1-8b"
# Of the time of steps; prices that are off by more are worth nothing.
_LITTLE = 0.5


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
    "--proof",
    type=FILE,
    metavar="DIR",
    help="Fit both, as far as they are there, to the folder that 'blendplan prove' wrote.",
)
@click.option(
    "--gpu",
    type=CatalogueName("GPU", "gpus"),
    metavar="NAME",
    help="GPU that was measured, or a TOML file that describes it. With --steps, whose datasheet "
    "goes into the profile. A proof says which it is of.",
)
@click.option(
    "--model",
    show_default=f"{DEFAULT_MODEL}, or the proof's",
    type=CatalogueName("model", "models"),
    metavar="NAME",
    help="Model that the steps are of; their prices hold for it alone.",
)
@click.option(
    "--tp",
    show_default="1, or the proof's",
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
    proof: Path | None,
    gpu: str | None,
    model: str | None,
    tp: int | None,
    output: Path,
    answer: Answer,
) -> None:
    """Fit the cost model to measurements.

    The profile, a TOML file, is used as --gpu FILE. Kernel times are tables as
    'python -m blendplan.proving.gpu' writes them. A step log is what
    'blendplan replay --step-log FILE' writes; of other engines it has the columns prefill_tokens,
    decode_tokens, kv_tokens_read, sequences and time_s, and may have prefill_pairs and end_s. A
    proof has both: what its steps take beside their kernels is added to them, or its model is
    priced by the steps where kernels are the least of them, as on a CPU.

    \b
    blendplan calibrate --kernels DIR --gpu h200 -o profile.toml
    blendplan calibrate --steps steps.parquet --model DIR -o profile.toml
    blendplan calibrate --proof proof/ -o profile.toml
    """
    if sum(given is not None for given in (kernels, steps, proof)) != 1:
        raise click.UsageError("give one of --kernels DIR, --steps FILE and --proof DIR")
    if kernels is not None and gpu is None:
        raise click.UsageError("--kernels needs --gpu NAME, the GPU whose rows to use")
    if kernels is not None and (model, tp) != (None, None):
        raise click.UsageError("--model and --tp are of steps; leave them out with --kernels")
    if output.suffix != ".toml":
        raise click.UsageError(f"a profile's name ends in .toml, so that --gpu knows it: {output}")
    check_destinations([output], inputs=[steps])
    named = output.stem
    with Progress(quiet=answer.quiet) as progress:
        from blendplan.hardware.lookup import gpu_spec
        from blendplan.hardware.profile import write_profile

        if proof is not None:
            profile, fitted = _from_proof(proof, gpu, named, model, tp, progress)
        elif kernels is not None:
            assert gpu is not None
            profile, fitted = _from_kernels(kernels, gpu_spec(gpu), progress)
        else:
            assert steps is not None
            base = gpu_spec(gpu) if gpu is not None else None
            profile, fitted = _from_steps(
                steps, base, named, model or DEFAULT_MODEL, tp or 1, progress
            )
        write_profile(profile, output)
    values = {"profile": str(output), "gpu": profile.name, **fitted}
    from blendplan.report.calibrated import calibrated

    answer.tell(values, calibrated)
    doubt = _doubt(fitted.get("steps"))
    if doubt:
        answer.remark(doubt)


def _doubt(steps: Mapping[str, Any] | None) -> str:
    """What is wrong with prices that explain little of the steps; empty for others."""
    if steps is None:
        return ""
    error, stalls = steps["median_error_share"], steps["stall_share"]
    if max(error, abs(stalls)) <= _LITTLE:
        return ""
    return (
        f"these prices explain little of the steps (off by {error:.0%} at the median, "
        f"{stalls:.0%} in sum): check that time_s is in seconds and that all steps are of one "
        "engine before you plan with them"
    )


def _from_kernels(
    folder: Path, base: "GpuSpec", progress: Progress
) -> tuple["GpuSpec", dict[str, Any]]:
    from blendplan.cost.calibration.from_kernels import calibrate_kernels

    profile, reports = calibrate_kernels(folder, base, progress=progress.report)
    return profile, _fits(reports)


def _from_proof(
    folder: Path, gpu: str | None, name: str, model: str | None, tp: int | None, progress: Progress
) -> tuple["GpuSpec", dict[str, Any]]:
    from blendplan.cost.launches import LAUNCHES
    from blendplan.proving.calibration import calibrate_proof, gpu_of_proof, model_of_proof
    from blendplan.proving.measurements import read_proof

    proof = read_proof(folder)
    base, of_steps = gpu_of_proof(proof, gpu, name), model_of_proof(proof, model)
    profile, reports = calibrate_proof(proof, base, of_steps, tp=tp, progress=progress.report)
    found = _fits(reports) if reports else {}
    if of_steps is not None:
        form = "steps" if "steps" in profile.fitted else LAUNCHES
        found[form] = dict(profile.fitted[form])
    return profile, found


def _fits(reports: "Sequence[FitReport]") -> dict[str, Any]:
    """How well operators fit, as JSON values."""
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
    return {"fits": fits}


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
