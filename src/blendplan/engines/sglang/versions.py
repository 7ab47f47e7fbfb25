"""Which SGLang a plan can be followed in."""

from blendplan.errors import BlendplanError

TESTED = ("0.5.23",)
# What `PlannedScheduler` builds on.
_METHODS = (
    "_get_new_batch_prefill_raw",
    "_add_request_to_queue",
    "get_next_batch_to_run",
    "get_output_streamer_class",
    "get_prefill_adder_class",
    "process_batch_result",
    "send_abort_output",
)


def check_scheduler(version: str, scheduler: type) -> None:
    """Refuse a version whose scheduler is not the one that is known here.

    Args:
        version: of SGLang.
        scheduler: its `Scheduler`.

    Raises:
        BlendplanError: it cannot follow a plan.
    """
    missing = [name for name in _METHODS if not hasattr(scheduler, name)]
    if missing:
        raise BlendplanError(
            f"SGLang {version} has another scheduler than this version of blendplan knows (no "
            f"{missing[0]}); install sglang=={TESTED[-1]}, or a later blendplan"
        )
