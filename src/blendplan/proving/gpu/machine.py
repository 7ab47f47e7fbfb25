"""What is measured: the GPU and the software that drives it."""

import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from blendplan import __version__
from blendplan.proving.gpu.known_gpu import gpu_of
from blendplan.proving.gpu.nvidia_smi import driver_facts


def machine_facts() -> dict[str, Any]:
    """Device, its size and number, driver, versions and the date, as JSON values."""
    properties = torch.cuda.get_device_properties(0)
    identity = getattr(properties, "uuid", None)
    return {
        "gpu": gpu_name(),
        "device": properties.name,
        "gpus": torch.cuda.device_count(),
        "sm_count": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "blendplan": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        **driver_facts(f"GPU-{identity}" if identity else "0"),
    }


@cache
def gpu_name() -> str:
    """Name of the GPU as the catalogue has it."""
    properties = torch.cuda.get_device_properties(0)
    return gpu_of(
        str(properties.name), properties.multi_processor_count, int(properties.total_memory)
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
