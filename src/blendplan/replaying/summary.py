"""`JobSummary`: what a job of one or several sessions was, as one JSON file beside its results."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blendplan import __version__
from blendplan.errors import BlendplanError
from blendplan.planfile.opened import PlanParts
from blendplan.planning.quoting.prices import Prices
from blendplan.replaying.course import Course
from blendplan.replaying.run import Replayed
from blendplan.requests.batch_output import failed, output_lines
from blendplan.whole_file import replacing

FORMAT = "blendplan-summary-1"
_SUMS = ("makespan_s", "finished", "prompt_tokens", "output_tokens", "preemptions", "restarts")
_PLANNED = ("makespan_s", "throughput_tokens_per_s", "prompt_tokens", "output_tokens", "steps")


@dataclass(frozen=True)
class JobSummary:
    """What was planned and what came of it, over all sessions.

    Attributes:
        values: JSON values, see docs/job.md.
    """

    values: dict[str, Any]

    @classmethod
    def of(
        cls,
        plan: PlanParts,
        replayed: Replayed,
        course: Course,
        *,
        results: Path,
        earlier: "JobSummary | None" = None,
        prices: Prices | None = None,
    ) -> "JobSummary":
        """The summary after a session.

        Args:
            plan: what was run.
            replayed: how the session went, or how it goes so far, as `so_far` has it.
            course: how far it was when.
            results: the results file; complete, unless the session was interrupted.
            earlier: the summary after the sessions before it.
            prices: of GPUs; without any, what was said earlier.
        """
        metadata, sessions = plan.metadata, [] if earlier is None else earlier.sessions
        if prices:
            price, currency = prices.of(metadata["gpu"]), prices.currency
        elif earlier is not None:
            price, currency = earlier.values["price_per_gpu_hour"], earlier.values["currency"]
        else:
            price, currency = None, ""
        if replayed.tally.elapsed_s or replayed.capacity is not None:  # else nothing was run
            sessions = [*sessions, _session(replayed, course)]
        total = {name: sum(one[name] or 0 for one in sessions) for name in _SUMS}
        engines = max((one["engines"] for one in sessions), default=1)
        gpu_hours = total["makespan_s"] / 3600 * engines * metadata["tp"]
        prompt = total["prompt_tokens"]
        cached = sum(one["prefix_sharing"] * one["prompt_tokens"] for one in sessions)
        tally = replayed.tally
        values = {
            "format": FORMAT,
            "blendplan": __version__,
            "results": results.name,
            "plan": plan.path.name,
            "complete": not replayed.interrupted,
            "engine": replayed.engine,
            "simulated": replayed.engine == "sim",
            **{name: metadata[name] for name in ("model", "gpu", "tp", "policy", "lengths")},
            "requests": tally.requests,
            "answered": tally.requests - tally.failed - tally.left,
            "failed": tally.failed,
            "errors": _errors(results) if tally.failed and not replayed.interrupted else {},
            "predicted": {name: metadata["predicted"].get(name) for name in _PLANNED}
            | {"prefix_sharing": metadata["prefix_sharing"]["planned"]},
            "bound_s": metadata["bound_s"],
            "measured": total
            | {
                "throughput_tokens_per_s": (prompt + total["output_tokens"])
                / max(total["makespan_s"], 1e-9),
                "prefix_sharing": cached / max(1, prompt),
            },
            "gpu_hours": gpu_hours,
            "price_per_gpu_hour": price,
            "currency": currency,
            "cost": None if price is None else gpu_hours * price,
            "sessions": sessions,
        }
        return cls(values)

    def headline(self) -> dict[str, Any]:
        """The figures that matter, as JSON values."""
        names = ("gpu_hours", "price_per_gpu_hour", "cost", "currency", "errors")
        return {
            "sessions": len(self.sessions),
            "makespan_s": self.values["measured"]["makespan_s"],
            **{name: self.values[name] for name in names},
        }

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What each session did, in order."""
        return list(self.values["sessions"])

    def write(self, path: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            BlendplanError: the path cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "JobSummary | None":
        """The summary in a file; None where there is none.

        Raises:
            BlendplanError: the file is something else.
        """
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            values = None
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise BlendplanError(f"{path} is no summary of a run; move it away")
        return cls(dict(values))


def _session(replayed: Replayed, course: Course) -> dict[str, Any]:
    run, tally = replayed.as_dict(), replayed.tally
    names = (*_SUMS, "failed", "prefix_sharing", "steps", "kv_tokens", "replan")
    return {name: run[name] for name in names} | {
        "makespan_s": tally.elapsed_s,
        "engines": max(1, tally.replicas, len(run["replicas"])),
        "progress": {"end_s": course.end_s, "done": course.done},
    }


def _errors(results: Path) -> dict[str, int]:
    """How many requests failed by the code of their error, the most frequent first."""
    codes: Counter[str] = Counter()
    for _, line in output_lines(results):
        if failed(line):
            codes[_code(line)] += 1
    return dict(codes.most_common())


def _code(line: Mapping[str, Any]) -> str:
    error, response = line.get("error"), line.get("response")
    if isinstance(error, Mapping):
        return str(error.get("code"))
    return f"status {response.get('status_code')}" if isinstance(response, Mapping) else "unknown"
