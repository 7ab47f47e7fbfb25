"""`Measurements`: what a proof's folder says of the machine and the model that it is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from blendplan.checks.json_files import parse_json_object, read_text
from blendplan.cost.calibration.kernel_tables import TABLES
from blendplan.errors import BlendplanError
from blendplan.printable import show
from blendplan.proving.folder import KERNELS, PROOF, STEPS
from blendplan.proving.gpu.sections import MACHINE


class Measurements(NamedTuple):
    """What of a proof a calibration rests on.

    Attributes:
        folder: of the proof.
        kernels: folder with tables of kernel times, or None.
        steps: log of an engine's steps, or None.
        gpu: name or profile that the proof was made with; empty if it does not say.
        model: of the steps, name or folder; empty if it does not say.
        tp: GPUs that shared the model.
        machine: facts of the GPU by its own driver; empty where kernels were not measured.
        steps_by: engine, processor and date of the steps, in words; empty if it does not say.
    """

    folder: Path
    kernels: Path | None
    steps: Path | None
    gpu: str
    model: str
    tp: int
    machine: Mapping[str, Any]
    steps_by: str

    @property
    def measured_gpu(self) -> str:
        """The GPU as the tables of kernel times call it; empty if there are none."""
        return str(self.machine.get("gpu", ""))

    @property
    def source(self) -> str:
        """Where kernel times come from, in a line."""
        said = self.machine.get
        software = [
            f"{name} {said(name)}" for name in ("driver", "torch", "cuda", "triton") if said(name)
        ]
        with_ = f" with {', '.join(software)}" if software else ""
        when = f" on {said('date')}" if said("date") else ""
        limit = f" at {said('power_limit_w'):g} W" if _is_number(said("power_limit_w")) else ""
        device = said("device") or self.measured_gpu or "an unnamed GPU"
        return f"Fitted to kernel times of {device}{limit}, measured{when}{with_}"


def read_proof(folder: Path) -> Measurements:
    """The folder of a proof, finished or cut short.

    Raises:
        BlendplanError: no such folder, nothing in it to calibrate from, a bad ``proof.json``.
    """
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise BlendplanError(f"proof {folder} {reason}; give what 'blendplan prove -o' wrote")
    summary = folder / PROOF.summary
    said = _object(summary)
    if said and said.get("format") != PROOF.form:
        raise BlendplanError(
            f"{summary}: format is {show(said.get('format'))}; expected {PROOF.form}, as this "
            "version of 'blendplan prove' writes it"
        )
    kernels, steps = folder / KERNELS, folder / STEPS
    has_kernels = any((kernels / f"{name}.parquet").is_file() for name in TABLES)
    if not has_kernels and not steps.is_file():
        raise BlendplanError(
            f"{folder} has neither {KERNELS}/ with tables of kernel times nor {STEPS}: that is no "
            "proof, or one that was cut short before either was measured"
        )
    identity = said.get("identity")
    identity = identity if isinstance(identity, Mapping) else {}
    tp = identity.get("tp", 1)
    if isinstance(tp, bool) or not isinstance(tp, int) or tp < 1:
        raise BlendplanError(f"{summary}: identity.tp is {show(tp)}; expected a number")
    return Measurements(
        folder,
        kernels if has_kernels else None,
        steps if steps.is_file() else None,
        _text(identity, "gpu"),
        _text(identity, "model"),
        tp,
        _object(kernels / MACHINE) if has_kernels else {},
        _steps_by(said.get("machine"), identity),
    )


def _steps_by(host: object, identity: Mapping[str, Any]) -> str:
    if not isinstance(host, Mapping) or not isinstance(host.get("versions"), Mapping):
        return ""
    engine = _text(identity, "engine")
    version = _text(host["versions"], engine)
    return f"{f'{engine} {version}'.strip()} beside {_text(host, 'cpu')}, {_text(host, 'date')}"


def _object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not path.is_file():
        return {}
    return parse_json_object(read_text(path, str(path), "make the proof again"), str(path))


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
