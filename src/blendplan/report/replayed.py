"""How a replay went, beside what its plan had promised."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blendplan.report.quantities import cost, count, duration, estimated, learned, rounded, share


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
    if run.get("total_output_tokens"):
        rows["all output tokens"] = estimated(run["total_output_tokens"])
    if run["output"]:
        rows["results"] = run["output"]
        if run["interrupted"]:
            rows["results"] += ", when the rest has run"
    return rows | _job(run["job"]) if "job" in run else rows


def _job(job: Mapping[str, Any]) -> dict[str, str]:
    """What the job comes to, over all of its sessions."""
    rows = {}
    if job["sessions"] > 1:
        rows["all sessions"] = f"{count(job['sessions'])}, {duration(job['makespan_s'])}"
    rows["GPU hours"] = rounded(job["gpu_hours"])
    if job["cost"] is not None:
        rows["cost"] = cost(job)
    return rows | {"summary": job["summary"]}


def _session(run: Mapping[str, Any]) -> dict[str, str]:
    """What happened since the engine was started."""
    planned = run["predicted"]
    compared = "makespan_s" in planned
    whole = run["finished"] + run["failed"] == run["requests"]

    def beside(name: str, words: Callable[[float], str], *, rate: bool = False) -> str:
        return f"; planned {words(planned[name])}" if compared and (whole or rate) else ""

    rows = {
        "makespan": duration(run["makespan_s"]) + beside("makespan_s", duration),
        "throughput": f"{rounded(run['throughput_tokens_per_s'])} tokens/s"
        + beside("throughput_tokens_per_s", rounded, rate=True),
        "prefix sharing": f"{share(run['prefix_sharing'])} of the prompt tokens"
        + beside("prefix_sharing", share, rate=True),
        "preemptions": count(run["preemptions"]) + beside("preemptions", count),
    }
    if compared and not whole:
        all_s = duration(planned["makespan_s"])
        rows["makespan"] += f" in this session; planned {all_s} for all requests"
    if run["steps"] is not None:
        # Several replicas take steps side by side; the plan says how many the slowest takes.
        planned_steps = "" if run["replicas"] else beside("steps", count)
        rows["steps"] = count(run["steps"]) + planned_steps
    if run["replan"] is not None:
        rows["lengths learned"] = learned(run["replan"])
    if run["replicas"]:
        rows["replicas"] = _balance(run["replicas"], run["makespan_s"])
    if run["restarts"]:
        rows["engine deaths"] = count(run["restarts"])
    return rows


def _balance(replicas: Sequence[Mapping[str, Any]], makespan_s: float) -> str:
    """How evenly several replicas worked."""
    worked = [one for one in replicas if one["finished"] or one["busy_s"]]
    moved = sum(one["moved_in"] for one in worked)
    idle_s = max((one["kept_waiting_s"] for one in worked), default=0.0)
    return (
        f"{len(worked)}, {count(moved)} requests moved between them; at most "
        f"{share(idle_s / max(makespan_s, 1e-9))} of the time idle while others had some waiting"
    )
