"""SGLang's plug-in point, for servers that users start themselves.

    BLENDPLAN_PLAN=plan.arrow python -m sglang.launch_server --model-path MODEL --enable-mixed-chunk

SGLang calls `follow_the_plan` in each of its processes (entry point group ``sglang.srt.plugins``).
Without the variable nothing is changed.
"""

import os

# As in `blendplan.engines.sglang.options`, which is only imported where there is a plan.
_PLAN = "BLENDPLAN_PLAN"
_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"


def follow_the_plan() -> None:
    """Put the scheduler that follows a plan in the place of SGLang's, where there is a plan.

    Raises:
        SystemExit: the plan cannot be followed; SGLang would go on after other exceptions.
    """
    if not os.environ.get(_PLAN):
        return
    from blendplan.engines.sglang import options
    from blendplan.engines.sglang.versions import check_scheduler
    from blendplan.errors import BlendplanError

    try:
        given = options.options()
        if given is not None and not given.path.exists():
            raise BlendplanError(f"{_PLAN} names {given.path}, which does not exist")
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType
        from sglang.version import __version__

        check_scheduler(__version__, Scheduler)
    except BlendplanError as error:
        raise SystemExit(f"blendplan: {error}") from None
    options.leave_memory_to_the_plan()
    from blendplan.engines.sglang.scheduler import PlannedScheduler

    HookRegistry.register(_SCHEDULER, PlannedScheduler, HookType.REPLACE)
