"""``blendplan``: the command group, loaded piece by piece, and its one way out on errors."""

import os
import resource
import signal
import sys
from importlib import import_module
from typing import Any

import click

from blendplan import __version__
from blendplan.cli.failure import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Failure,
    explain,
    leave,
    system_line,
    usage_line,
)
from blendplan.names import unknown

# Name of the command = name of its module in this package; `--help` lists them in this order.
COMMANDS = (
    "run",
    "plan",
    "sample",
    "trial",
    "replay",
    "export",
    "compare",
    "quote",
    "inspect",
    "verify",
    "prove",
    "calibrate",
    "gpus",
    "models",
)


class Commands(click.Group):
    """A group that imports a command's module when the command is asked for.

    Whatever goes wrong ends in one line on standard error and in exit code 1 (failed), 2 (wrong
    usage) or 130 (interrupted).
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"blendplan.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and not word.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(unknown("command", word, COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            failure = explain(error)
            if failure is None:
                raise
            raise failure from error

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run a command line and exit; with ``standalone_mode=False``, click's own behaviour."""
        run: Any = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **kwargs)
        try:
            code = run(*args, standalone_mode=False, **kwargs)
            sys.stdout.flush()
        except Failure as failure:
            leave(failure.message, failure.code)
        except click.ClickException as error:
            leave(usage_line(error), error.exit_code)
        except click.Abort:
            leave("interrupted", EXIT_INTERRUPTED)
        except OSError as error:
            leave(system_line(error), EXIT_FAILED)
        sys.exit(code or 0)


@click.group(
    "blendplan",
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Plan offline LLM batch inference: which request runs when.

    Reads all requests before the GPU starts and writes a plan: an order of admission in which
    compute-heavy and memory-heavy requests run together and common prompt prefixes are computed
    once. Every command takes --json (one JSON object on standard output) and --quiet.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Entry point of the ``blendplan`` script."""
    # A job that is told to end cleans up as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        # Each thread of OpenBLAS wants memory of its own, and waits for ever where there is none.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cli.main(prog_name="blendplan")
