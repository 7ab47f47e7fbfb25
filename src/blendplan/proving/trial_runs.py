"""`run_once`: one run of an excerpt on an engine, in input order or as planned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blendplan.engines.kept import KeptEngine
from blendplan.engines.registry import ENGINES
from blendplan.planfile.plan import Plan
from blendplan.proving.trial_folder import INPUT, PLANNED, TrialFolder
from blendplan.replaying.course import Course
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally

_FIGURES = (
    "makespan_s",
    "throughput_tokens_per_s",
    "requests",
    "finished",
    "failed",
    "restarts",
    "prompt_tokens",
    "output_tokens",
    "prefix_sharing",
    "preemptions",
    "steps",
)


@dataclass(frozen=True)
class Start:
    """How the engine of every run is started; arguments of `replay`."""

    engine: str
    load: str | None
    engine_args: Mapping[str, Any]
    flags: Sequence[str]
    replan: bool


def run_once(
    folder: TrialFolder,
    way: str,
    repeat: int,
    plan: Plan,
    start: Start,
    kept: KeptEngine,
    *,
    remark: Callable[[str], None],
    progress: Callable[[Tally], None],
) -> bool:
    """Run a plan to its end and put it down in the folder; False where it was interrupted.

    In input order, the engine's own scheduler admits the requests, where it has one; as planned,
    the plan's policy does. Every step is logged.
    """
    folder.clear(way, repeat)
    course = Course(progress)
    replayed = replay(
        plan,
        start.engine,
        folder.results(way, repeat),
        model=start.load,
        engine_args=start.engine_args,
        flags=start.flags,
        replan=start.replan,
        step_log=folder.step_log(way, repeat),
        stock=way == INPUT and not ENGINES.get(start.engine).needs_plan,
        kept=kept,
        remark=remark,
        progress=course.note,
    )
    if replayed.interrupted or replayed.capacity is None:
        return False
    told = replayed.as_dict()
    folder.add(
        {
            "way": way,
            "repeat": repeat,
            **{name: told[name] for name in _FIGURES},
            "limits": replayed.capacity.limits.as_metadata(),
            "progress": {"end_s": course.end_s, "done": course.done},
        }
    )
    return True


def ways(repeat: int) -> tuple[str, str]:
    """Both ways of a repeat, every other time in reverse, so that no drift favours one."""
    return (INPUT, PLANNED) if repeat % 2 else (PLANNED, INPUT)
