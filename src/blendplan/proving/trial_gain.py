"""`gained`: what the planned runs of a trial gained over those in input order."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from blendplan.proving.trial_folder import INPUT, PLANNED, WAYS, Run

# Runs whose output tokens differ by more than this share did not do the same work.
SAME_OUTPUT = 0.01


def gained(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians of both ways, and the gain of the planned one; JSON values.

    ``input`` and ``planned`` have ``makespan_s``, ``throughput_tokens_per_s``, ``output_tokens``,
    ``prefix_sharing`` and ``preemptions``; ``throughput`` and ``makespan`` are ratios less 1, by
    which planned runs have more throughput and take less time than half of those beside them;
    ``least`` and ``most`` are those of throughput between the runs of a repeat; ``same_output``
    says whether both generated as many tokens, to within a hundredth.

    Args:
        runs: at least one of each way, repeat by repeat.
    """
    by_way = {way: [run for run in runs if run["way"] == way] for way in WAYS}
    middle = {way: _middle(those) for way, those in by_way.items()}
    beside = {run["repeat"]: run for run in by_way[INPUT]}
    pairs = [(beside[run["repeat"]], run) for run in by_way[PLANNED]]
    gains = [_ratio(ours, theirs, "throughput_tokens_per_s") for theirs, ours in pairs]
    shorter = [_ratio(theirs, ours, "makespan_s") for theirs, ours in pairs]
    tokens = [middle[way]["output_tokens"] for way in WAYS]
    return {
        **middle,
        "repeats": len(pairs),
        "throughput": median(gains),
        "least": min(gains),
        "most": max(gains),
        "makespan": median(shorter),
        "same_output": abs(tokens[1] / max(1, tokens[0]) - 1.0) <= SAME_OUTPUT,
    }


def remarks(gain: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """What makes the gain less sure than it looks, one line each."""
    said = []
    theirs, ours = gain[INPUT], gain[PLANNED]
    if not gain["same_output"]:
        share = ours["output_tokens"] / max(1, theirs["output_tokens"]) - 1.0
        said.append(
            f"the planned run generated {abs(share):.1%} {'more' if share > 0 else 'fewer'} output "
            "tokens, so compare tokens per second, not makespans; a fixed seed, temperature 0 or "
            "output_tokens make runs the same"
        )
    failed = {way: max(run["failed"] for run in runs if run["way"] == way) for way in _WORDS}
    if any(failed.values()):
        told = " and ".join(f"{number:,} {_WORDS[way]}" for way, number in failed.items() if number)
        said.append(f"requests failed: {told}; the results say why")
    if any(run["restarts"] for run in runs):
        said.append("the engine died during a run and was started anew, which takes time")
    if gain["least"] < 0 < gain["most"]:
        said.append("repeats disagree on whether the plan is faster: what differs is chance")
    return said


_WORDS = {INPUT: "in input order", PLANNED: "as planned"}


def _middle(runs: Sequence[Run]) -> dict[str, Any]:
    names = ("makespan_s", "throughput_tokens_per_s", "output_tokens", "prefix_sharing")
    # An engine's own scheduler may not tell what it preempts.
    told = [run["preemptions"] for run in runs if run["preemptions"] is not None]
    return {name: median(run[name] for run in runs) for name in names} | {
        "preemptions": median(told) if told else None
    }


def _ratio(above: Run, below: Run, name: str) -> float:
    return float(above[name] / max(below[name], 1e-12) - 1.0)
