"""How a run on an engine is reported, and with which exit code."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blendplan.cli.answer import Answer
from blendplan.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, Failure

if TYPE_CHECKING:
    from blendplan.engines import Replayed


def tell_outcome(
    answer: Answer, replayed: "Replayed", output: Path | None, compile_s: float
) -> None:
    """Answer with what was planned and what happened.

    Raises:
        Failure: the run was interrupted, or requests failed.
    """
    from blendplan.report.replayed import replayed_rows
    from blendplan.report.summary import facts

    values: dict[str, Any] = replayed.as_dict() | {
        "output": None if output is None else str(output),
        "compile_s": compile_s,
    }
    answer.tell(values, lambda: facts(replayed_rows(values)))
    if replayed.interrupted:
        raise Failure("interrupted; --resume continues the run", EXIT_INTERRUPTED)
    if values["failed"]:
        line = f"{values['failed']} of {values['requests']} requests failed"
        if output is not None:
            line += (
                f"; their lines in {output} say why, and another `replay` with --already {output} "
                f"tries them again"
            )
        raise Failure(line, EXIT_FAILED)
