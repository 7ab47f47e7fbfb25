"""From a plan and the options of a user to the `Launch` of an engine."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import Launch
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import model_spec
from blendplan.planfile.plan import Plan
from blendplan.simulator.engine_graphs import graphs_in

Remark = Callable[[str], None]


def check_options(
    engine: str,
    kind: EngineKind,
    *,
    arguments: Mapping[str, Any],
    flags: Sequence[str] = (),
    pdmux: bool,
    log_steps: bool,
) -> None:
    """Refuse what an engine cannot do before anything is started.

    Raises:
        BlendplanError: with the option to leave out.
    """
    if pdmux and not kind.spatial_sharing:
        others = " or ".join(f"{title}'s" for title in _sharing_in_space())
        raise BlendplanError(
            f"spatial sharing is {others}, not that of {engine!r}; drop --pdmux"
            if others
            else f"{kind.title} has no spatial sharing; drop --pdmux"
        )
    if log_steps and not kind.step_log:
        raise BlendplanError(f"{kind.title} does not tell what its steps compute; drop --step-log")
    if (arguments or flags) and not kind.takes_arguments:
        raise BlendplanError(f"{kind.title} takes no engine arguments; plan with them instead")


def _sharing_in_space() -> list[str]:
    titles = []
    for name in ENGINES.names():
        with suppress(BlendplanError):  # an engine that cannot be imported is none to offer
            kind = ENGINES.get(name)
            if kind.spatial_sharing:
                titles.append(kind.title)
    return titles


def model_to_load(
    plan: Plan, engine: str, kind: EngineKind, model: str | None, remark: Remark
) -> str:
    """The model by the engine's own name for it, or a folder."""
    planned = str(plan.metadata["model"])
    if model is not None or not kind.loads_model or Path(planned).is_dir():
        return model or planned
    try:
        published = model_spec(planned).source.split()[0]
    except BlendplanError:
        raise BlendplanError(
            f"the plan was made for a model {planned!r} of your own; tell {engine} with --model "
            f"where it is"
        ) from None
    remark(
        f"loading {published}; name the model to load where it is another, such as an instruct "
        "version of it"
    )
    return published


def launch_of(
    plan: Plan,
    model: str,
    arguments: Mapping[str, Any],
    *,
    flags: Sequence[str] = (),
    pdmux: bool,
    log_steps: bool,
    output: Path | None,
) -> Launch:
    """How an engine is started for a plan.

    Args:
        plan: for one replica.
        model: by the engine's own name for it, or a folder.
        arguments: the user's own, by the engine's names.
        flags: words of the engine's own command line.
        pdmux, log_steps: as in `Launch`.
        output: the results file, beside which the engine prints.
    """
    limits, engine = plan.limits, plan.metadata["engine"]
    unplanned = launch_unplanned(
        model, arguments, flags=flags, pdmux=pdmux, log_steps=log_steps, output=output
    )
    return replace(
        unplanned,
        limits=limits,
        tp=int(plan.metadata["tp"]),
        kv_dtype=engine.get("kv_dtype", "auto"),
        context_tokens=plan.max_model_len,
        block_size=_asked_block_size(engine),
        gpu_memory_utilization=engine.get("gpu_memory_utilization"),
        graphs=graphs_in(engine),
    )


def _asked_block_size(engine: Mapping[str, Any]) -> int | None:
    """Tokens of a block where others than usual were asked for; states may have added to them."""
    asked = int(engine.get("asked_block_size", engine["block_size"]))
    return None if asked == EngineLimits.block_size else asked


def launch_unplanned(
    model: str,
    arguments: Mapping[str, Any],
    *,
    flags: Sequence[str] = (),
    pdmux: bool,
    log_steps: bool,
    output: Path | None,
) -> Launch:
    """How an engine is started for requests without a plan: as it would by itself.

    Args: as of `launch_of`.
    """
    return Launch(
        model=model,
        arguments=dict(arguments),
        flags=tuple(flags),
        pdmux=pdmux,
        log_steps=log_steps,
        log=None if output is None else engine_log(output),
    )


def engine_log(output: Path) -> Path:
    """Where the engines of a run print to; kept when one of them died."""
    return output.with_name(output.name + ".engine.log")
