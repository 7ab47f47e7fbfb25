"""What a plan says where it is of a part of a job, of its chances, and of its tail."""

from collections.abc import Mapping
from typing import Any

from blendplan.checks.arguments import number, text, whole
from blendplan.errors import BlendplanError
from blendplan.printable import show

_MOST = 1 << 62
_REST = ("planned", "postponed", "already", "repeated", "rejected")


def check_part_of_job(metadata: Mapping[str, Any]) -> None:
    """Check ``window``, ``coverage``, ``tail`` and ``predicted.makespan_quantiles_s``, if there.

    Args:
        metadata: with ``requests`` and ``predicted`` checked.

    Raises:
        BlendplanError: a value that is missing, of another type or out of range, or numbers of
            requests that do not add up.
    """
    if "makespan_quantiles_s" in metadata["predicted"]:
        where = "predicted.makespan_quantiles_s"
        quantiles = _object(where, metadata["predicted"]["makespan_quantiles_s"])
        for name in ("p50", "p90"):
            number(f"{where}.{name}", quantiles.get(name), 0.0, 1e300)
    if "tail" in metadata:
        tail = _object("tail", metadata["tail"])
        text("tail.soonest", tail.get("soonest"))
        for name in ("share", "longer", "sooner"):
            number(f"tail.{name}", tail.get(name), -1e300, 1e300)
    if "window" in metadata:
        window = _object("window", metadata["window"])
        number("window.within_s", window.get("within_s"), 0.0, 1e300, above_least=True)
        number("window.chance", window.get("chance"), 0.0, 1.0)
        text("window.first", window.get("first"))
        whole("window.postponed", window.get("postponed"), 0, _MOST)
        whole("window.too_long", window.get("too_long", 0), 0, _MOST)
    if "coverage" in metadata:
        coverage = _object("coverage", metadata["coverage"])
        for name in ("file", *_REST):
            whole(f"coverage.{name}", coverage.get(name), 0, _MOST)
        if coverage["planned"] != metadata["requests"]:
            raise BlendplanError(
                f"coverage.planned is {coverage['planned']}, requests {metadata['requests']}"
            )
        if sum(coverage[name] for name in _REST) != coverage["file"]:
            raise BlendplanError(
                f"coverage.file is {coverage['file']}; {', '.join(_REST)} do not add up to that"
            )


def _object(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BlendplanError(f"{name} is {show(value)}; it must be an object")
    return value
