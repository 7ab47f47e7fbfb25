"""`contradictions`: what a proof found that is not as the model has it."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FAR = 0.15
"""A prediction further off than this, as a share of what was measured, is told."""
AGREEMENT_OF_GAIN = 0.05
AGREEMENT_OF_SHARING = 0.05
NO_DIFFERENCE = 0.02

Values = Mapping[str, Any]


def contradictions(values: Values) -> list[dict[str, Any]]:
    """Findings against the model, those that weigh most first; JSON values.

    Args:
        values: of a ``proof.json``.

    Returns:
        Of each: ``what`` was expected, the ``expected`` and the ``measured`` figure with their
        ``unit`` (``s``, ``count``, ``share`` or ``gain``, a share too), ``part`` and ``weight``.
    """
    parts = {
        name: part["values"] for name, part in values["parts"].items() if part["state"] == "done"
    }
    found = [*_runs(values["runs"]), *_steps(parts.get("steps")), *_kernels(parts.get("kernels"))]
    found += [*_orders(parts.get("runs")), *_overlap(parts.get("overlap"))]
    return sorted(found, key=lambda one: -one["weight"])


def agreement(runs: Sequence[Values]) -> dict[str, Any]:
    """How many predicted makespans of known lengths are within 15 % of the measured ones."""
    errors = [run["predicted_s"] / run["measured_s"] - 1.0 for run in runs if _known(run)]
    return {
        "runs": len(errors),
        "within": sum(abs(error) <= FAR for error in errors),
        "errors": errors,
    }


def _known(run: Values) -> bool:
    return bool(run["lengths"] == "known")


def _one(
    part: str, what: str, unit: str, expected: float, measured: float, weight: float
) -> dict[str, Any]:
    figures = {"unit": unit, "expected": expected, "measured": measured}
    return {"part": part, "what": what, **figures, "weight": weight}


def _runs(runs: Sequence[Values]) -> Iterator[dict[str, Any]]:
    """Repeats of one order with the same step size count once, by their medians."""
    repeats: dict[tuple[Any, ...], list[Values]] = defaultdict(list)
    for run in runs:
        repeats[run["workload"], run["order"], run["batched_tokens"]].append(run)
    for (workload, order, tokens), same in repeats.items():
        name, first = f"{workload}, {order}, {tokens:,} tokens a step", same[0]
        failed = sum(run["failed"] for run in same)
        if failed:
            yield _one("runs", f"{name}: requests that fail", "count", 0, failed, 10.0)
        if not _known(first):
            continue
        measured_s, steps, shared = (
            statistics.median(run[word] or 0 for run in same)
            for word in ("measured_s", "steps", "prefix_sharing")
        )
        off = first["predicted_s"] / measured_s - 1.0
        if abs(off) > FAR:
            seconds = first["predicted_s"], measured_s
            yield _one("runs", f"{name}: makespan", "s", *seconds, abs(off))
        planned = first["planned_prefix_sharing"]
        if planned - shared > AGREEMENT_OF_SHARING:
            lost = planned - shared
            yield _one("runs", f"{name}: prefix sharing", "share", planned, shared, lost)
        off = steps / first["planned_steps"] - 1.0 if steps else 0.0
        if abs(off) > 0.01:
            yield _one("runs", f"{name}: steps", "count", first["planned_steps"], steps, abs(off))


def _orders(found: Values | None) -> Iterator[dict[str, Any]]:
    for workload, values in ({} if found is None else found["workloads"]).items():
        for name, order in values["orders"].items():
            for base, gain in order.get("gain", {}).items():
                if order["stock"]:
                    continue
                what = f"{workload}: gain of {name} over {base}"
                if not _known(order):  # what it does is predicted by nobody
                    if gain["median"] < -NO_DIFFERENCE:
                        yield _one("runs", what, "gain", gain["predicted"], gain["median"], 5.0)
                elif gain["median"] < -NO_DIFFERENCE and gain["predicted"] >= 0.0:
                    yield _one("runs", what, "gain", gain["predicted"], gain["median"], 5.0)
                elif abs(gain["median"] - gain["predicted"]) > AGREEMENT_OF_GAIN:
                    off = abs(gain["median"] - gain["predicted"])
                    yield _one("runs", what, "gain", gain["predicted"], gain["median"], off)


def _steps(found: Values | None) -> Iterator[dict[str, Any]]:
    for word in ("held_out", "catalogue"):
        priced = None if found is None else found[word]
        title = {"held_out": "fitted", "catalogue": "shipped"}[word]
        for kind, figures in ({} if priced is None else priced["kinds"]).items():
            error = figures["total_error"]
            if error is not None and abs(error) > FAR:
                what = f"{title} prices, steps of {kind}: time"
                seconds = figures["predicted_s"], figures["measured_s"]
                yield _one("steps", what, "s", *seconds, abs(error) * figures["time_share"])


def _kernels(found: Values | None) -> Iterator[dict[str, Any]]:
    for fit in [] if found is None else found["fits"]:
        error = fit["shipped_error_share"]
        if error is not None and error > FAR:
            what = f"{fit['operator']} {fit['dtype']} {fit['kernel']}: error of the shipped prices"
            yield _one("kernels", what, "share", fit["error_share"], error, error)


def _overlap(found: Values | None) -> Iterator[dict[str, Any]]:
    beside = None if found is None else found["side_by_side"]
    if beside is not None and beside["together_s"] < beside["one_engine_s"]:
        what = "one engine that blends, faster than two side by side: time"
        yield _one("overlap", what, "s", beside["together_s"], beside["one_engine_s"], 1.0)
