"""`gpu_of`: which GPU of the catalogue a device is."""

import re

from blendplan.hardware.lookup import gpu_names, gpu_spec

# Drivers differ in what they keep for themselves; the next larger card has a fifth more.
MEMORY_TOLERANCE = 0.1
_MEMORY = re.compile(r"\d+g")


def gpu_of(device: str, sm_count: int, memory_bytes: int) -> str:
    """The catalogue's name of a device, or a name made of its own where the catalogue lacks it.

    A device is an entry if it has the entry's words in its name, as many multiprocessors and about
    as much memory; so a laptop's GPU or a slice of one is none.

    Args:
        device: as the driver calls it, ``NVIDIA H100 80GB HBM3``.
        sm_count, memory_bytes: as the driver reports them.
    """
    words = re.findall(r"[a-z0-9]+", device.lower())
    fitting = []
    for name in gpu_names():
        wanted = {word for word in name.split("-") if not _MEMORY.fullmatch(word)}
        spec = gpu_spec(name)
        off = abs(memory_bytes / spec.memory_bytes - 1.0)
        if wanted <= set(words) and sm_count == spec.sm_count and off <= MEMORY_TOLERANCE:
            fitting.append((-len(wanted), off, name))
    return min(fitting)[2] if fitting else "-".join(words)
