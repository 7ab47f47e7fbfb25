"""`scheduled_work`: what a step of SGLang's scheduler will compute."""

from typing import Any

from blendplan.cost.reach import Reach, tokens_read_by
from blendplan.engines.step_clock import ScheduledWork


def scheduled_work(batch: Any, adder: Any, reach: Reach) -> ScheduledWork:
    """What has just been scheduled.

    Args:
        batch: what will run.
        adder: of its prompts, None where it only decodes.
        reach: how far back the model's attention looks.
    """
    work = ScheduledWork(reach)
    decoding = batch.reqs
    prefilled = []
    if batch.forward_mode.is_extend():
        decoding = batch.decoding_reqs or []
        for request in adder.can_run_list:
            cached, new = int(request.prefix_len), int(request.extend_len)
            work.prefill(cached, new)
            prefilled.append(cached + new)
    work.decode_tokens = len(decoding)
    # The lengths are those of all sequences; only those that decode read.
    read = tokens_read_by(reach, batch.seq_lens_cpu.tolist())
    work.kv_tokens_read = read - tokens_read_by(reach, prefilled)
    return work
