"""`SECTIONS`: what can be measured, and the file that says that it was."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple


class Section(NamedTuple):
    """One measurement.

    Attributes:
        module: of this folder, with a function ``measure(out, limit_s)``.
        result: file that it writes last.
    """

    module: str
    result: str

    def done(self, out: Path) -> bool:
        """Whether it has been measured into that folder."""
        return (out / self.result).is_file()

    def measure(self, out: Path, limit_s: float) -> None:
        """Measure for about so many seconds, and write the files."""
        import_module(f"{__package__}.{self.module}").measure(out, limit_s)


SECTIONS = {
    "gemm": Section("gemm", "gemm.parquet"),
    "decode": Section("decode_attention", "decode_attention.parquet"),
    "prefill": Section("context_attention", "context_attention.parquet"),
    "all_reduce": Section("all_reduce", "all_reduce.parquet"),
    "launch": Section("launch", "launch.json"),
    "overlap": Section("overlap", "overlap_fit.json"),
}

MACHINE = "machine.json"
"""What was measured: device, driver and software."""
DEFAULT_SECONDS = 80.0
"""Limit on the time of each section."""
