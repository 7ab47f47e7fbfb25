"""A plug-in of SGLang that writes down in which order a plan's policy is told of admissions."""

import os
from pathlib import Path
from typing import Any

FILE = "RECORD_ADMISSIONS_TO"


def record() -> None:
    """For the entry points ``sglang.srt.plugins``."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    began = "blendplan.engines.planned.PlannedAdmission.began"
    HookRegistry.register(began, _write_down, HookType.BEFORE)


def _write_down(admission: Any, row: int) -> None:
    with Path(os.environ[FILE]).open("a") as file:
        file.write(f"{row}\n")
