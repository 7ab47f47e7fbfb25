"""What ``nvidia-smi`` says of a GPU: driver, power limit and clocks."""

import re
import subprocess
from pathlib import Path

# Query of nvidia-smi, and the name under which its answer is kept.
FIELDS = {
    "driver_version": "driver",
    "power.limit": "power_limit_w",
    "clocks.max.sm": "max_sm_clock_mhz",
    "clocks.max.memory": "max_memory_clock_mhz",
    "clocks.applications.graphics": "application_clock_mhz",
    "ecc.mode.current": "ecc",
    "mig.mode.current": "mig",
}
WAIT_S = 20.0
_DRIVER = Path("/proc/driver/nvidia/version")


def driver_facts(identity: str) -> dict[str, str | float]:
    """Driver, power limit and clocks, as far as they can be told.

    Args:
        identity: index or UUID of the GPU, as ``nvidia-smi -i`` takes it.
    """
    facts = _query(identity)
    if "driver" not in facts and (version := _loaded_driver()):
        facts["driver"] = version
    return facts


def _query(identity: str) -> dict[str, str | float]:
    words = ["nvidia-smi", "-i", identity, f"--query-gpu={','.join(FIELDS)}"]
    try:
        said = subprocess.run(
            [*words, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in said.strip().splitlines()[0].split(",")] if said else []
    if len(values) != len(FIELDS):
        return {}
    answered = zip(FIELDS.values(), values, strict=True)
    return {
        name: _number(value) if name.endswith(("_w", "_mhz")) else value
        for name, value in answered
        if value and not value.startswith("[")  # [N/A], [Not Supported]
    }


def _number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:
        return value


def _loaded_driver() -> str:
    """Version of the kernel module, where there is no nvidia-smi; as in many containers."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", _DRIVER.read_text())
    except OSError:
        return ""
    return found[1] if found else ""
