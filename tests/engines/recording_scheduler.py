"""`RecordingScheduler`: writes down which row of the plan begins when, for tests to compare."""

import os
from typing import Any

from blendplan.engines.vllm.scheduler import PlannedScheduler


class RecordingScheduler(PlannedScheduler):
    """Appends the row of each sequence that begins to the file named in ``BEGAN``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        began = self._admission.began

        def note(row: int) -> None:
            began(row)
            with open(os.environ["BEGAN"], "a") as file:  # noqa: PTH123
                file.write(f"{row}\n")

        self._admission.began = note  # type: ignore[method-assign]
