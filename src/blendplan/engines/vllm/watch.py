"""`scheduled_work`: what a step of vLLM's scheduler will compute."""

from typing import Any

from blendplan.cost.reach import Reach
from blendplan.engines.step_clock import ScheduledWork


def scheduled_work(scheduler: Any, output: Any, reach: Reach) -> ScheduledWork:
    """What has just been scheduled.

    Args:
        scheduler: a `PlannedScheduler`.
        output: of its `schedule`.
        reach: how far back the model's attention looks.
    """
    work = ScheduledWork(reach)
    contexts = []
    for request_id, new in output.num_scheduled_tokens.items():
        request = scheduler.requests[request_id]
        # The scheduler has counted this step's tokens as computed already.
        before = request.num_computed_tokens - new
        if new == 1 and before >= request.num_prompt_tokens:
            contexts.append(before + 1)
        else:
            work.prefill(before, new)
    work.decode(contexts)
    return work
