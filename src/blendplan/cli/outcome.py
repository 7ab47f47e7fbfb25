"""How a run on an engine is reported, and with which exit code."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blendplan.cli.answer import Answer
from blendplan.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, Failure

if TYPE_CHECKING:
    from blendplan.cli.progress import Progress
    from blendplan.lengths.predicted import Total
    from blendplan.replaying.run import Replayed
    from blendplan.replaying.tally import Tally


_AGAIN = "--resume continues the run"


@contextmanager
def resumable(output: Path | None, again: str = _AGAIN) -> Iterator[None]:
    """Within it, an interrupt that ends a run at once says how to go on, if there is a journal.

    Args:
        output: the results file.
        again: how to go on.

    Raises:
        Failure: instead of the interrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        from blendplan.replaying.journal import journal_path

        if output is None or not journal_path(output).exists():
            raise
        raise Failure(f"interrupted; {again}", EXIT_INTERRUPTED) from None


def showing(progress: "Progress", engine: str) -> "Callable[[Tally], None]":
    """What a run calls to show on a bar how far it has come."""

    def show(tally: "Tally") -> None:
        done = tally.requests - tally.left
        progress.report(f"{engine}: {tally.line()}", done, tally.requests)

    return show


def tell_outcome(
    answer: Answer,
    replayed: "Replayed",
    output: Path | None,
    compile_s: float,
    total: "Total | None" = None,
    *,
    more: "Mapping[str, Any]" = MappingProxyType({}),
    again: str = _AGAIN,
) -> None:
    """Show what was planned and what happened.

    Args:
        answer, replayed, output, compile_s: of the run.
        total: what a sample tells of all output tokens.
        more: further values for the answer.
        again: how an interrupted run goes on.

    Raises:
        Failure: the run was interrupted, or requests failed.
    """
    from blendplan.report.replayed import replayed_rows
    from blendplan.report.summary import facts

    values: dict[str, Any] = replayed.as_dict() | {
        "output": None if output is None else str(output),
        "compile_s": compile_s,
        **more,
    }
    if total is not None:
        values["total_output_tokens"] = total.as_dict()
    answer.tell(values, lambda shown: facts(replayed_rows(shown)))
    if replayed.interrupted:
        raise Failure(f"interrupted; {again}", EXIT_INTERRUPTED)
    if values["failed"]:
        line = f"{values['failed']} of {values['requests']} requests failed"
        if output is not None:
            line += (
                f"; their lines in {output} say why, and another `replay` with --already {output} "
                f"tries them again"
            )
        raise Failure(line, EXIT_FAILED)
