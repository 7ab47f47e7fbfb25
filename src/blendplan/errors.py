"""The one exception of blendplan."""

from blendplan.printable import printable


class BlendplanError(ValueError):
    """Bad input or an impossible requirement; the message is one line for the user.

    The message says what is wrong, where, the value seen, and what to do about it. The command
    line prints it after ``error:`` and exits with 1. What cannot be seen on a terminal, such as a
    control character in a file name, stands in it as an escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(map(str.strip, message.splitlines()))))
