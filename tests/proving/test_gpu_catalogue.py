"""Which GPU of the catalogue a device is, and what its driver says of it."""

import os
from pathlib import Path

import pytest

from blendplan.hardware.lookup import gpu_names, gpu_spec
from blendplan.proving.gpu import nvidia_smi
from blendplan.proving.gpu.known_gpu import gpu_of

# As drivers call them, multiprocessors, total memory in GiB, entry.
DEVICES = (
    ("NVIDIA A100-SXM4-80GB", 108, 79.15, "a100-80g"),
    ("NVIDIA A100-SXM4-40GB", 108, 39.39, "a100-40g"),
    ("NVIDIA A100 80GB PCIe", 108, 79.2, "a100-pcie-80g"),
    ("NVIDIA A100-PCIE-40GB", 108, 39.4, "a100-pcie-40g"),
    ("NVIDIA H100 80GB HBM3", 132, 79.11, "h100-80g"),
    ("NVIDIA H100 PCIe", 114, 79.1, "h100-pcie-80g"),
    ("NVIDIA H100 NVL", 132, 93.0, "h100-nvl-94g"),
    ("NVIDIA H200", 132, 139.8, "h200"),
    ("NVIDIA H20-3e", 78, 139.8, "h20-141g"),
    ("NVIDIA GH200 480GB", 132, 94.5, "gh200-96g"),
    ("NVIDIA L4", 58, 22.04, "l4"),
    ("NVIDIA L40S", 142, 44.42, "l40s"),
    ("NVIDIA A10G", 80, 21.99, "a10g"),
    ("NVIDIA GeForce RTX 4090", 128, 23.64, "rtx-4090"),
    ("NVIDIA RTX 6000 Ada Generation", 142, 44.43, "rtx-6000-ada"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 188, 94.97, "rtx-pro-6000"),
    ("Tesla T4", 40, 14.75, "t4"),
    ("AMD Instinct MI300X", 304, 191.98, "mi300x"),
)
# Like an entry by name alone: fewer multiprocessors, less memory, another card.
OTHERS = (
    ("NVIDIA GeForce RTX 4090 Laptop GPU", 76, 15.7, "nvidia-geforce-rtx-4090-laptop-gpu"),
    ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 60, 39.5, "nvidia-h100-80gb-hbm3-mig-3g-40gb"),
    ("Tesla V100-SXM2-16GB", 80, 15.77, "tesla-v100-sxm2-16gb"),
    ("Some GPU of 2031", 300, 512.0, "some-gpu-of-2031"),
)
ANSWER = "580.65.06, 700.00, 1980, 2619, [N/A], Enabled, [Not Supported]"


@pytest.mark.parametrize(("device", "sm_count", "gib", "name"), DEVICES + OTHERS)
def test_devices_by_the_names_of_their_drivers(
    device: str, sm_count: int, gib: float, name: str
) -> None:
    assert gpu_of(device, sm_count, round(gib * 2**30)) == name


@pytest.mark.parametrize("name", gpu_names())
def test_a_device_that_is_called_as_an_entry_is_it(name: str) -> None:
    spec = gpu_spec(name)
    assert gpu_of(f"Maker {name}", spec.sm_count, spec.memory_bytes) == name


def _nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, monkeypatch, f'test "$2" = GPU-7 && echo "{ANSWER}"')
    assert nvidia_smi.driver_facts("GPU-7") == {
        "driver": "580.65.06",
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980.0,
        "max_memory_clock_mhz": 2619.0,
        "ecc": "Enabled",
    }


@pytest.mark.parametrize("script", ["exit 9", "echo no devices", ":"])
def test_a_driver_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """The version of the loaded module remains, where there is one."""
    loaded = tmp_path / "version"
    monkeypatch.setattr(nvidia_smi, "_DRIVER", loaded)
    _nvidia_smi(tmp_path, monkeypatch, script)
    assert nvidia_smi.driver_facts("0") == {}
    loaded.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    assert nvidia_smi.driver_facts("0") == {"driver": "535.104.05"}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert nvidia_smi.driver_facts("0") == {"driver": "535.104.05"}
