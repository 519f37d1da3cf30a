"""How the commands end."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the commands."""

    WELL = 0
    TRIALS_FAILED = 1
    REQUEST = 2
    INTERRUPTED = 130
    CUT_OFF = 141
    """The reader of the output has gone, as with `| head`; the code of a program that SIGPIPE ends."""
    TERMINATED = 143
