"""From an exception to one line on standard error and an exit code."""

import errno
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from blendplan.errors import BlendplanError
from blendplan.printable import printable

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Failure(click.ClickException):
    """A failure that is explained already."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        # Click declares the code on the class; ours differs from one failure to the next.
        self.code = exit_code


def explain(error: BaseException) -> Failure | None:
    """What to tell the user of an exception, or None where it is a defect of blendplan.

    A defect keeps its traceback: it is what the report of it needs.
    """
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, BlendplanError):
        return Failure(_one_line(str(error)), EXIT_FAILED)
    if isinstance(error, OSError) and not _lacks_memory(error):
        return Failure(system_line(error), EXIT_FAILED)
    if _lacks_memory(error):
        said = _one_line(str(error))
        detail = f" ({said})" if 0 < len(said) <= 200 else ""
        return Failure(
            f"out of memory{detail}; use a machine with more, or plan the requests in parts",
            EXIT_FAILED,
        )
    if isinstance(error, ImportError) and not str(error.name or "").startswith("blendplan"):
        return Failure(
            f"a package cannot be imported ({_one_line(str(error))}); install blendplan again",
            EXIT_FAILED,
        )
    return None


# What the loader and the thread library say where memory is short, in an error of their own kind.
_SHORT_OF_MEMORY = (
    *("failed to map segment", "cannot allocate memory", "cannot enable executable stack"),
    *("can't start new thread", "memory allocation", "out of memory"),
)


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is about memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error).lower()
        loading = isinstance(error, ImportError | OSError | RuntimeError | SystemError)
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if loading and any(words in text for words in _SHORT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def usage_line(error: click.ClickException) -> str:
    """The message of a click exception as one line, with where to read more."""
    message = _one_line(error.format_message()).rstrip(".")
    line = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return line
    return f"{line} (see '{context.command_path} --help')"


def leave(line: str, code: int) -> NoReturn:
    """Print ``error: line`` on standard error and exit with `code`; nothing where it is empty."""
    if line:
        with suppress(OSError):
            click.echo(f"error: {printable(line)}", err=True)
    abandon_unwritable_output()
    sys.exit(code)


def abandon_unwritable_output() -> None:
    """Keep the interpreter from failing once more, at exit, on output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def system_line(error: OSError) -> str:
    """What the operating system refused; empty where the reader of our output has seen enough."""
    if isinstance(error, BrokenPipeError):
        return ""
    if error.errno is None:
        return _one_line(str(error))
    reason = os.strerror(error.errno).lower()
    if error.errno == errno.ENOSPC:
        reason += "; free some space or choose another place"
    if error.filename is None:
        return reason
    return f"{os.fsdecode(error.filename)}: {reason}"


def _one_line(message: str) -> str:
    return " ".join(message.split())
