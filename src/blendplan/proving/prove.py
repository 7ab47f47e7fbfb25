"""`prove`: measure on a real engine what plans are made of and what they gain."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blendplan.checks.arguments import path as argument_path
from blendplan.engines.kept import KeptEngine
from blendplan.engines.launch import check_options
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.names import did_you_mean
from blendplan.proving.bench import Bench, Clock, TimeIsOverError
from blendplan.proving.contradictions import agreement, contradictions
from blendplan.proving.folder import DONE, FAILED, LEFT, SKIPPED, Part, ProofFolder
from blendplan.proving.host import host_facts
from blendplan.proving.parts.registry import PARTS, Row
from blendplan.proving.scale import scaled
from blendplan.proving.settings import ProofSettings

_TIME_IS_OVER = "the time was over; the same command goes on"


def prove(
    settings: ProofSettings,
    folder: Path | str,
    *,
    parts: Sequence[str] = tuple(PARTS),
    remark: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure the parts of a proof that are not measured yet.

    Args:
        settings: what is measured, on what.
        folder: where everything goes; a folder of the same proof is continued.
        parts: names in `PARTS`.
        remark: called with a line on anything that the user should know.
        progress: called with what is done, and how much of how much of it.

    Returns:
        What is in ``proof.json``; see docs/proof.md.

    Raises:
        BlendplanError: an unknown part, an engine that is not there, a folder of another proof.
        KeyboardInterrupt: it was interrupted; what was measured is kept.
    """
    for name in parts:
        if name not in PARTS:
            hint = did_you_mean(name, list(PARTS)) or f"known are {', '.join(PARTS)}"
            raise BlendplanError(f"a proof has no part {name!r}; {hint}")
    kind = ENGINES.get(settings.engine)
    if kind.needs_plan:
        raise BlendplanError(f"{kind.title} proves nothing; give a real engine")
    arguments = settings.engine_args
    check_options(
        settings.engine,
        kind,
        arguments=arguments,
        flags=settings.flags,
        pdmux=False,
        log_steps=True,
    )
    model_spec(settings.model)
    if settings.gpu is not None:
        gpu_spec(settings.gpu)
    kind.check_installed()
    store = ProofFolder(argument_path("folder", folder), settings.identity)
    if settings.on_cpu:
        for name, value in kind.on_cpu.environment.items():
            os.environ.setdefault(name, value)
        settings = replace(settings, engine_args={**kind.on_cpu.arguments, **arguments})
    store.values["machine"] = host_facts(settings.gpu)
    clock = Clock(settings.minutes)
    settings = scaled(settings, store)
    with KeptEngine(kind, max(settings.batched_tokens)) as kept:
        bench = Bench(settings, store, kept, clock, remark=remark, progress=progress)
        for name in PARTS:
            if name in parts and not _is_done(name, bench):
                store.put(name, _measured(PARTS[name], bench))
                _tell(name, store.part(name), remark)
    store.values["contradictions"] = contradictions(store.values)
    store.values["agreement"] = agreement(store.runs)
    store.write()
    return store.values


def _is_done(name: str, bench: Bench) -> bool:
    """Whether a part is measured, with as many repeats as are wanted now."""
    values = bench.folder.done(name)
    if values is None or name != "runs":
        return values is not None
    orders = [order for one in values["workloads"].values() for order in one["orders"].values()]
    return all(len(order["measured_s"]) >= bench.settings.repeats for order in orders)


def _measured(row: Row, bench: Bench) -> Part:
    """A part as it is after the attempt."""
    settings, begun_s = bench.settings, time.monotonic()
    if row.needs_gpu and settings.on_cpu:
        return {"state": SKIPPED, "why": "there is no GPU; with --gpu NAME it is measured"}
    if bench.clock.left_s < max(1.0, row.time_share * 60.0 * settings.minutes):
        return {"state": LEFT, "why": _TIME_IS_OVER}
    try:
        values = row.measure(bench)
    except TimeIsOverError as cut:
        so_far = {} if cut.values is None else {"values": cut.values}
        return {"state": LEFT, "why": _TIME_IS_OVER} | so_far
    except BlendplanError as error:
        return {"state": FAILED, "why": str(error)}
    return {"state": DONE, "seconds": time.monotonic() - begun_s, "values": values}


def _tell(name: str, part: Part, remark: Callable[[str], None]) -> None:
    if part["state"] == DONE:
        remark(f"{name}: measured in {part['seconds']:,.0f} s")
    else:
        remark(f"{name}: {part['state']}: {part['why']}")
