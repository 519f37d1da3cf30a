"""Faults that stop all trials of a run: its folder is full, can't be written or is gone, or an image has changed."""

import errno
import tempfile
from collections.abc import Iterator
from typing import Final

from trainable.errors import ChangedInput
from trainable.records.run_folder import RunFolder

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
ROOM_BYTES: Final = 2**20  # more than a trial's JSON and rows, less than any weights; assumed


def fault_of_run(run: RunFolder, error: BaseException) -> str:
    """Why no trial of `run` can continue after `error`; "" if only the trial that raised it has a problem.

    The error alone is not enough: libraries wrap it, and if the folder is gone, it only names a file in it. So the
    folder is tried too.
    """
    for each in _causes(error):
        if isinstance(each, ChangedInput):
            return str(each)
        if isinstance(each, OSError) and each.errno in FULL:
            return f"the run folder {run.path} must have room, but its disk says: {each.strerror}; make room"
    if gone := folder_gone(run):
        return gone
    try:
        with tempfile.NamedTemporaryFile(dir=run.path, prefix=".room-") as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as problem:
        return f"the run folder {run.path} must be writable, but its disk says: {problem.strerror}"
    return ""


def folder_gone(run: RunFolder) -> str:
    """A message that the run folder is gone; "" if it exists. An empty folder in its place may be Ray's."""
    if run.manifest.exists():
        return ""
    return f"the run folder {run.path} must stay where it is, but it is gone; put it back"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while handling."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
