"""What can be wrong with a request, and the nearest known name for a message."""

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request or its input is wrong; its one line says what must hold, what was given, and what to do."""


class ChangedInput(RequestError):
    """An input of a run has changed since the run began: no trial can continue."""


class RunFault(RequestError):
    """Something must be fixed before a recorded run can continue, such as a full disk."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint ` (did you mean ...?)` with the nearest of `known`, or "" if none is near."""
    near = difflib.get_close_matches(given, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
