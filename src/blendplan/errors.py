"""The one exception of blendplan."""


class BlendplanError(ValueError):
    """Bad input or an impossible requirement; the message is one line for the user.

    The message says what is wrong, where, the value seen, and what to do about it. The command
    line prints it after ``error:`` and exits with 1.
    """
