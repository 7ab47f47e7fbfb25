"""`scheduled_work`: what a step of SGLang's scheduler will compute."""

from typing import Any

from blendplan.engines.step_clock import ScheduledWork


def scheduled_work(batch: Any, adder: Any) -> ScheduledWork:
    """What has just been scheduled.

    Args:
        batch: what will run.
        adder: of its prompts, None where it only decodes.
    """
    work = ScheduledWork(kv_tokens_read=int(batch.seq_lens_cpu.sum()))
    decoding = batch.reqs
    if batch.forward_mode.is_extend():
        decoding = batch.decoding_reqs or []
        for request in adder.can_run_list:
            cached, new = int(request.prefix_len), int(request.extend_len)
            work.prefill(cached, new)
            # The sum is over all sequences; only those that decode read.
            work.kv_tokens_read -= cached + new
    work.decode_tokens = len(decoding)
    return work
