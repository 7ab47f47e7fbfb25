"""How a replay went, beside what its plan had promised."""

from collections.abc import Mapping
from typing import Any

from blendplan.report.quantities import count, duration, rounded, share


def replayed_rows(run: Mapping[str, Any]) -> dict[str, str]:
    """The run in words, line by line.

    Args:
        run: keys as in ``blendplan replay --json``.
    """
    planned = run["predicted"]
    done = f"{count(run['finished'])} finished"
    if run["failed"]:
        done += f", {count(run['failed'])} failed"
    if run["already_done"]:
        done += f", {count(run['already_done'])} done before"
    rows = {
        "requests": f"{count(run['requests'])}: {done}",
        "engine": run["engine"],
        "makespan": f"{duration(run['makespan_s'])}; planned {duration(planned['makespan_s'])}",
        "throughput": f"{rounded(run['throughput_tokens_per_s'])} tokens/s; planned "
        f"{rounded(planned['throughput_tokens_per_s'])}",
        "prefix sharing": f"{share(run['prefix_sharing'])} of the prompt tokens",
        "preemptions": f"{count(run['preemptions'])}; planned {count(planned['preemptions'])}",
    }
    if run["steps"] is not None:
        rows["steps"] = f"{count(run['steps'])}; planned {count(planned['steps'])}"
    if run["output"]:
        rows["results"] = run["output"]
    return rows
