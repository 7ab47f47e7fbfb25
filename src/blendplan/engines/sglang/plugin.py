"""SGLang's plug-in point, for servers that users start themselves.

    BLENDPLAN_PLAN=plan.arrow python -m sglang.launch_server --model-path MODEL --enable-mixed-chunk

SGLang calls `follow_the_plan` in each of its processes (entry point group ``sglang.srt.plugins``).
Without the variable nothing is changed.
"""

from blendplan.engines.sglang import options
from blendplan.errors import BlendplanError

_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"


def follow_the_plan() -> None:
    """Put the scheduler that follows a plan in the place of SGLang's, where there is a plan.

    Raises:
        SystemExit: the plan cannot be followed; SGLang would go on after other exceptions.
    """
    try:
        given = options.options()
        if given is None:
            return
        if not given.path.exists():
            raise BlendplanError(f"{options.PLAN} names {given.path}, which does not exist")
    except BlendplanError as error:
        raise SystemExit(f"blendplan: {error}") from None
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    options.leave_memory_to_the_plan()
    from blendplan.engines.sglang.scheduler import PlannedScheduler

    HookRegistry.register(_SCHEDULER, PlannedScheduler, HookType.REPLACE)
