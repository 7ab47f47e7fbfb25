"""The command line: one file per command, each a thin skin over the library.

In go the words of a user; out come files, a table or one JSON object, and an exit code. Nothing
but click is imported until a command does its work, so that ``--help`` and a mistyped option
answer at once. To add a command, write ``cli/<name>.py`` with a click command called ``command``
and put its name into `COMMANDS`.
"""

from blendplan.cli.group import COMMANDS, cli, main

__all__ = ["COMMANDS", "cli", "main"]
