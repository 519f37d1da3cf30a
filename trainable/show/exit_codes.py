"""How the commands end."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the commands."""

    WELL = 0
    """All went well."""
    TRIALS_FAILED = 1
    """Some trials failed after all their retries."""
    REQUEST = 2
    """The request or its input is wrong, or the run has a fault that must be mended first."""
    INTERRUPTED = 130
    """Ctrl-C, or the time limit: `sweep resume` goes on."""
    CUT_OFF = 141
    """The reader of the output has gone, as with `| head`; the code of a program that SIGPIPE ends."""
    TERMINATED = 143
    """SIGTERM: `sweep resume` goes on."""
