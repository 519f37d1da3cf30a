"""What may be wrong with a request, and the near miss that a message names."""

import difflib
from collections.abc import Iterable


class RequestError(Exception):
    """The request or its input is wrong: one line that says what must hold, what was given, what to do."""


class ChangedInput(RequestError):
    """What a run was begun with is not what it was: no trial can go on."""


class RunFault(RequestError):
    """Something must be mended before a run on record can go on, such as a full disk."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint ` (did you mean ...?)` with the nearest of `known`, or nothing where none is near."""
    near = difflib.get_close_matches(given, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
