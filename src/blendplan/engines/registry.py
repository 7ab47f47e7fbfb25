"""Which engine a plan is replayed on, and how it is started."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blendplan.engines.process import EngineProcess
from blendplan.engines.protocol import Engine, Launch
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import model_spec
from blendplan.planfile.plan import Plan
from blendplan.simulator.cuda_graphs import graph_padding

if TYPE_CHECKING:
    from blendplan.engines.simulated import SimulatedEngine

ENGINES = ("sim", "vllm", "sglang")

Remark = Callable[[str], None]


def check_engine_name(engine: str) -> None:
    """Raise a BlendplanError with the nearest names when there is no such engine."""
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(ENGINES)}"
        raise BlendplanError(f"unknown engine {engine!r}; {hint}")


def model_to_load(plan: Plan, engine: str, model: str | None, remark: Remark) -> str:
    """The model by the engine's own name for it, or a folder."""
    planned = str(plan.metadata["model"])
    if model is not None or engine == "sim" or Path(planned).is_dir():
        return model or planned
    try:
        published = model_spec(planned).source.split()[0]
    except BlendplanError:
        raise BlendplanError(
            f"the plan was made for a model {planned!r} of your own; tell {engine} with --model "
            f"where it is"
        ) from None
    remark(f"loading {published}; --model for another, such as an instruct version of it")
    return published


def engine_starter(
    plan: Plan,
    engine: str,
    model: str,
    arguments: Mapping[str, Any],
    pdmux: bool,
    log_steps: bool,
    output: Path | None,
) -> Callable[[], Engine]:
    """How to start the engine, any number of times."""
    if engine == "sim":
        if arguments:
            raise BlendplanError("the simulated engine takes no engine arguments; plan for them")
        return partial(simulated_engine, plan, log_steps=log_steps)
    settings = plan.settings
    batch_steps = plan.metadata["engine"].get("decode_batch_steps", {})
    launch = Launch(
        model=model,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        tp=int(plan.metadata["tp"]),
        kv_dtype=plan.metadata["engine"].get("kv_dtype", "auto"),
        graph_sizes=graph_padding(
            {int(size): int(steps) for size, steps in batch_steps.items()}, settings.max_num_seqs
        )["sizes"],
        arguments=dict(arguments),
        pdmux=pdmux,
        log_steps=log_steps,
    )
    log = None if output is None else engine_log(output)
    if log is not None:
        log.unlink(missing_ok=True)  # an earlier session's
    if engine == "vllm":
        from blendplan.engines.vllm.adapter import VllmEngine

        return partial(EngineProcess, partial(VllmEngine, launch), log=log)
    from blendplan.engines.sglang.adapter import SglangEngine

    return partial(EngineProcess, partial(SglangEngine, launch), log=log)


def engine_log(output: Path) -> Path:
    """Where the engines of a run print to; kept when one of them died."""
    return output.with_name(output.name + ".engine.log")


def simulated_engine(plan: Plan, *, log_steps: bool = False) -> "SimulatedEngine":
    """The engine that a plan was made for, simulated.

    A request generates the output length that it states, else the predicted one.
    """
    from blendplan.engines.simulated import SimulatedEngine
    from blendplan.planfile.rerun import machine_of, workload_of

    target = machine_of(plan)
    return SimulatedEngine(workload_of(plan), target.settings, target.table, log_steps=log_steps)
