"""Fit the operator parameters that the package ships, one GPU after the other.

    python benchmarks/fit_catalogue.py --data DIR [--gpu NAME]

Writes ``src/blendplan/hardware/catalogue/kernels/<gpu>.toml``, the same on every run.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import tomli_w

from blendplan.cost.calibration.from_kernels import calibrate_kernels
from blendplan.hardware.lookup import gpu_spec

GPUS = ("a100-80g", "h100-80g", "h200", "b200", "l40s")
CATALOGUE = Path(__file__).parents[1] / "src" / "blendplan" / "hardware" / "catalogue" / "kernels"
SOURCE = (
    "Fitted to kernel times of github.com/ai-dynamo/aiconfigurator, commit 095f58a "
    "(Apache-2.0, Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES), and all-reduce times "
    "of github.com/microsoft/vidur, commit 7d47513 (MIT, Copyright (c) Microsoft Corporation)"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of measured tables")
    parser.add_argument("--gpu", choices=GPUS, action="append", help="only this one")
    arguments = parser.parse_args()
    CATALOGUE.mkdir(exist_ok=True)
    for name in arguments.gpu or GPUS:
        gpu = replace(gpu_spec(name), fitted={})
        fitted_gpu, _ = calibrate_kernels(
            arguments.data,
            gpu,
            source=SOURCE,
            progress=lambda what, done, total: print(f"{what} ({done + 1}/{total})", flush=True),
        )
        head = "# Operator parameters by dtype and kernel; made by benchmarks/fit_catalogue.py.\n\n"
        (CATALOGUE / f"{name}.toml").write_text(
            head + tomli_w.dumps(fitted_gpu.fitted), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
