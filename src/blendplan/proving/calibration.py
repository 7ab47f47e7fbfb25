"""`calibrate_proof`: from a proof's folder to a GPU profile."""

from dataclasses import replace

from blendplan.cost.calibration.beside import beside
from blendplan.cost.calibration.from_kernels import FitReport, Progress, calibrate_kernels
from blendplan.cost.calibration.from_steps import read_step_log, unknown_machine
from blendplan.cost.calibration.of_engine import calibrate_engine
from blendplan.cost.calibration.operator_fits import enough, fits
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_names, gpu_spec, model_spec
from blendplan.hardware.model import ModelSpec, linear_shapes
from blendplan.proving.measurements import Measurements


def calibrate_proof(
    proof: Measurements,
    gpu: GpuSpec,
    model: ModelSpec | None = None,
    *,
    tp: int | None = None,
    progress: Progress | None = None,
) -> tuple[GpuSpec, list[FitReport]]:
    """The GPU with all that a proof measured: operators, and launches beside them.

    Operators that the proof has no kernel times of stay as they are known of the GPU. Where steps
    do not follow them, as on a CPU, they are priced as a whole, for the proof's own model.

    Args:
        proof: from `read_proof`.
        gpu: from `gpu_of_proof`.
        model: of the steps, from `model_of_proof`; None leaves the steps out.
        tp: GPUs that shared the model; what the proof says without it.
        progress: as in `calibrate_kernels`.

    Raises:
        BlendplanError: tables or a log that cannot be read, or with too few rows of anything.
    """
    reports: list[FitReport] = []
    found = gpu
    with_steps = proof.steps is not None and model is not None
    if proof.kernels is not None and (not with_steps or _usable(proof, gpu)):
        found, reports = calibrate_kernels(
            proof.kernels,
            gpu,
            called=proof.measured_gpu,
            source=proof.source,
            progress=progress,
        )
        found = replace(found, fitted=beside(found.fitted, gpu.fitted))
    if proof.steps is not None and model is not None:
        log = read_step_log(proof.steps)
        shared = proof.tp if tp is None else tp
        found = calibrate_engine(log, found, model, shared, by=proof.steps_by)
    return found, reports


def _usable(proof: Measurements, gpu: GpuSpec) -> bool:
    """Whether any kernel was measured often enough; steps serve where none was."""
    assert proof.kernels is not None
    return any(enough(fit) for fit in fits(proof.kernels, gpu, proof.measured_gpu))


def gpu_of_proof(proof: Measurements, named: str | None, profile: str) -> GpuSpec:
    """The GPU that a proof is of.

    Args:
        proof: from `read_proof`.
        named: by the user; a catalogue name, or a profile in TOML.
        profile: what to call a machine whose steps are all that is known of it.

    Raises:
        BlendplanError: a GPU that is not known here, or not the one that was measured.
    """
    name = named or proof.gpu or proof.measured_gpu
    if not name:
        return unknown_machine(profile)
    try:
        gpu = gpu_spec(name)
    except BlendplanError as error:
        if named:
            raise
        if proof.kernels is None:
            return unknown_machine(profile)
        raise BlendplanError(
            f"{proof.folder} is of GPU {name}, which is not known here; describe it in a TOML file "
            f"and name that with --gpu ({error})"
        ) from None
    known = gpu_names()
    measured = proof.measured_gpu or proof.gpu
    if gpu.name in known and measured in known and gpu.name != measured:
        what = "kernels" if proof.measured_gpu else "steps"
        raise BlendplanError(
            f"the {what} in {proof.folder} were measured on {measured}, not on {gpu.name}; leave "
            "--gpu out, or describe your own in a TOML file"
        )
    return gpu


def model_of_proof(proof: Measurements, named: str | None) -> ModelSpec | None:
    """The model whose steps a proof has; None where it has none.

    Args:
        proof: from `read_proof`.
        named: by the user, where it is now; it must be of the proof's sizes where that is known.

    Raises:
        BlendplanError: a model that is not known here, or not the proof's.
    """
    if proof.steps is None:
        return None
    if named is None:
        if not proof.model:
            raise BlendplanError(
                f"{proof.folder} does not say which model its steps are of; name it with --model"
            )
        try:
            return model_spec(proof.model)
        except BlendplanError as error:
            raise BlendplanError(
                f"the steps in {proof.folder} are of {proof.model}, which is not known here; say "
                f"where it is with --model ({error})"
            ) from None
    model = model_spec(named)
    try:
        own = model_spec(proof.model) if proof.model else model
    except BlendplanError:
        return model
    if linear_shapes(own) != linear_shapes(model):
        raise BlendplanError(
            f"the steps in {proof.folder} are of {proof.model}, not of {named}; leave --model out"
        )
    return model
