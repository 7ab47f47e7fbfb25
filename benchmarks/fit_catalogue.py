"""Fit the operator parameters that the package ships, one GPU after the other.

    python benchmarks/fit_catalogue.py --data DIR [--gpu NAME]
    python benchmarks/fit_catalogue.py --proof DIR

Writes ``src/blendplan/hardware/catalogue/kernels/<gpu>.toml``, the same on every run. A proof is
what ``blendplan prove`` writes on one GPU of the catalogue, calibrated before or not: its fits go
beside those that are there, and say where they come from. Of one without ``kernels/`` only the
launches are taken.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import tomli_w

from blendplan.cost.calibration.from_kernels import calibrate_kernels
from blendplan.errors import BlendplanError
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_names, gpu_spec
from blendplan.proving.calibration import calibrate_proof, model_of_proof
from blendplan.proving.gpu.sections import MACHINE
from blendplan.proving.measurements import read_proof

GPUS = ("a100-80g", "h100-80g", "h200", "b200", "l40s")
CATALOGUE = Path(__file__).parents[1] / "src" / "blendplan" / "hardware" / "catalogue" / "kernels"
SOURCE = (
    "Fitted to kernel times of github.com/ai-dynamo/aiconfigurator, commit 095f58a "
    "(Apache-2.0, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES), and all-reduce times "
    "of github.com/microsoft/vidur, commit 7d47513 (MIT, Copyright (c) Microsoft Corporation)"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="folder of published tables")
    data.add_argument("--proof", type=Path, help="folder of a proof")
    parser.add_argument("--gpu", choices=GPUS, action="append", help="of --data, only this one")
    parser.add_argument("-o", "--output", type=Path, default=CATALOGUE, help="folder to write to")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.proof:
            _write(_of_proof(arguments.proof), arguments.output)
            return 0
        for name in arguments.gpu or GPUS:
            gpu = replace(gpu_spec(name), fitted={})
            fitted, _ = calibrate_kernels(arguments.data, gpu, source=SOURCE, progress=_tell)
            _write(fitted, arguments.output)
    except BlendplanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _of_proof(folder: Path) -> GpuSpec:
    """The GPU that a proof was made on, with the fits to its kernels and its steps.

    Raises:
        BlendplanError: nothing of a GPU, or not of one of the catalogue.
    """
    proof = read_proof(folder)
    name = proof.measured_gpu or proof.gpu
    if not name:
        raise BlendplanError(
            f"{folder} has no kernel times with a {MACHINE} beside them, nor a GPU"
        )
    if name not in gpu_names():
        raise BlendplanError(
            f"{folder} is of GPU {name!r}, which the catalogue lacks; add it to gpus.toml"
        )
    found, _ = calibrate_proof(proof, gpu_spec(name), model_of_proof(proof, None), progress=_tell)
    # Steps as a whole are of one model.
    return found.without("steps")


def _write(gpu: GpuSpec, folder: Path) -> None:
    head = "# Operator parameters by dtype and kernel; made by benchmarks/fit_catalogue.py.\n\n"
    (folder / f"{gpu.name}.toml").write_text(head + tomli_w.dumps(gpu.fitted), encoding="utf-8")


def _tell(what: str, done: int, total: int) -> None:
    print(f"{what} ({done + 1}/{total})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
