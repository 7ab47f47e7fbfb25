"""How a replay went, beside what its plan had promised."""

from collections.abc import Mapping
from typing import Any

from blendplan.report.quantities import count, duration, rounded, share


def replayed_rows(run: Mapping[str, Any]) -> dict[str, str]:
    """The run in words, line by line.

    What the plan predicts is for all requests: it stands beside the figures of a session only
    where that session ran them all.

    Args:
        run: keys as in ``blendplan replay --json``.
    """
    done = f"{count(run['finished'])} finished"
    if run["failed"]:
        done += f", {count(run['failed'])} failed"
    if run["already_done"]:
        done += f", {count(run['already_done'])} done before"
    rows = {"requests": f"{count(run['requests'])}: {done}", "engine": run["engine"]}
    if run["makespan_s"] is not None:
        rows |= _session(run)
    if run["output"]:
        rows["results"] = run["output"]
        if run["interrupted"]:
            rows["results"] += ", when --resume has run the rest"
    return rows


def _session(run: Mapping[str, Any]) -> dict[str, str]:
    """What happened since the engine was started."""
    planned = run["predicted"]
    whole = run["finished"] + run["failed"] == run["requests"]

    def beside(text: str) -> str:
        return f"; planned {text}" if whole else ""

    ran, planned_s = duration(run["makespan_s"]), duration(planned["makespan_s"])
    rows = {
        "makespan": f"{ran}; planned {planned_s}"
        if whole
        else f"{ran} in this session; planned {planned_s} for all requests",
        "throughput": f"{rounded(run['throughput_tokens_per_s'])} tokens/s; planned "
        f"{rounded(planned['throughput_tokens_per_s'])}",
        "prefix sharing": f"{share(run['prefix_sharing'])} of the prompt tokens; planned "
        f"{share(planned['prefix_sharing'])}",
        "preemptions": count(run["preemptions"]) + beside(count(planned["preemptions"])),
    }
    if run["steps"] is not None:
        rows["steps"] = count(run["steps"]) + beside(count(planned["steps"]))
    if run["restarts"]:
        rows["engine deaths"] = count(run["restarts"])
    return rows
