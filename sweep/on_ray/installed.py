"""Workers import this driver's code: where Ray makes them look for it, and what each node finds.

By default, Ray puts the folder of the driver's script and the current folder first on the path of every worker: a
`trainable.py` there, or another clone's code, would silently be imported instead of ours.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ray import cloudpickle
from ray.job_config import JobConfig

from trainable.errors import RequestError
from trainable.installation import PROJECT, place

SITES: Final = ("site-packages", "dist-packages")


class _Only(list[str]):
    """Folders that can't be added to."""

    def extend(self, more: Iterable[str]) -> None:
        """Do nothing: Ray would add folders at each start."""


def job() -> Any:
    """The job that Ray is given: its workers look for code where this driver's is, and otherwise as any Python does."""
    told = JobConfig()
    told._py_driver_sys_path = _Only(_unknown_to_python())
    return told


def _unknown_to_python() -> list[str]:
    """The folder of this driver's code if that is a checkout, which another Python may not know about."""
    return [] if place().name in SITES else [str(place())]


@contextmanager
def python_path() -> Iterator[None]:
    """Around the start of Ray here: workers import this driver's code even before they belong to a job."""
    before = os.environ.get("PYTHONPATH")
    folders = [*_unknown_to_python(), *([before] if before else [])]
    if folders:
        os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    try:
        yield
    finally:
        if before is not None:
            os.environ["PYTHONPATH"] = before
        else:
            os.environ.pop("PYTHONPATH", None)


def code_here() -> dict[str, str]:
    """Which code is imported here: host, place, version and digest, or why none is.

    Nodes get this function by value, not by name: the name may mean other code there.
    """
    import socket

    host = socket.gethostname()
    try:
        from trainable.installation import code_digest, place, version
    except BaseException as error:  # no package, an older one, an unrelated file of that name
        return {"host": host, "why": f"{type(error).__name__}: {error}"}
    return {
        "host": host,
        "place": str(place()),
        "version": version(),
        "digest": code_digest(),
    }


cloudpickle.register_pickle_by_value(sys.modules[__name__])


def refuse_other_code(seen: Sequence[dict[str, str]]) -> None:
    """Check that each node imports the code that this driver runs. `seen` are results of `code_here`.

    Raises:
        RequestError: a node imports other code, or none.
    """
    mine = code_here()
    for found in seen:
        if found.get("digest") == mine["digest"]:
            continue
        theirs = (
            f"can't import it ({found['why']})"
            if "why" in found
            else f"imports other code from {found['place']} (version {found['version']})"
        )
        raise RequestError(
            f"every node must have the code of this driver, {PROJECT} in {mine['place']} (version {mine['version']}), "
            f"but {found['host']} {theirs}; install the same version on every node"
        )
