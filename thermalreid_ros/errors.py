"""The one family of errors that are the user's to fix: the message is the line that is shown."""


class ThermalReidError(ValueError):
    """A bad input: one line that names the thing (file, topic, parameter), the fault and the remedy.

    Commands print the message and exit with code 2; nodes report it in their diagnostics and live on.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's message, for libraries that answer with several; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
