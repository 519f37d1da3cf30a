"""The paths of a run's files, and the check that stops an older session from writing there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trainable.errors import RequestError
from trainable.records.files import (
    Disk,
    StrPath,
    current_disk,
    read_json,
)


class StaleSession(Exception):
    """Another driver has taken over the run folder since this trial began, so it must not write any more."""


@contextmanager
def readable(path: StrPath, remedy: str) -> Iterator[None]:
    """Turn any error in what is read from `path` into one line that names the path and the remedy."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{error}; {remedy}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        said = str(error).splitlines()[0]
        if isinstance(error, KeyError):
            said = f"{error} is missing"
        elif isinstance(error, ValidationError):
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RequestError(
            f"{path} must be as this project wrote it, but {said}; {remedy}"
        ) from None


@dataclass(frozen=True)
class RunPaths:
    """The paths of a run's files; see docs/reference/run-folder.md."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def split(self) -> Path:
        return self.path / "split.parquet"

    @property
    def rungs(self) -> Path:
        return self.path / "rungs.jsonl"

    @property
    def bar(self) -> Path:
        """The key of the last trial whose weights are kept: a trial that ends behind it need not write any."""
        return self.path / "bar.json"

    @property
    def session(self) -> Path:
        return self.path / "session.json"

    @property
    def driver(self) -> Path:
        """Names the driver that holds the run, while there is one; in older versions it was the hold itself."""
        return self.path / "driver.json"

    @property
    def sessions(self) -> Path:
        return self.path / "sessions"

    def holder(self, session: int) -> Path:
        """Names the driver that drew this number, permanently; while alive, that driver updates the file's time."""
        return self.sessions / f"{session}.json"

    def ended(self, session: int) -> Path:
        """Created when that driver lets go."""
        return self.sessions / f"{session}.ended"

    def newest_drawn(self, disk: Disk | None = None) -> int:
        """The highest number that a driver drew; 0 before the first."""
        names = (disk or current_disk()).names(self.sessions)
        found = [name.removesuffix(".json") for name in names]
        return max((int(name) for name in found if name.isdecimal()), default=0)

    @property
    def log(self) -> Path:
        return self.path / "sweep.log"

    @property
    def ray(self) -> Path:
        return self.path / "ray"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def test(self) -> Path:
        return self.path / "test.json"

    @property
    def test_predictions(self) -> Path:
        return self.path / "test_predictions.parquet"

    @property
    def test_mistakes(self) -> Path:
        """The most confident mistakes on the test images, with thumbnails."""
        return self.path / "test_mistakes.parquet"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def refuse_stale(self, session: int) -> None:
        """Raise StaleSession if a later session has taken over; an older version shows that only in session.json."""
        newest = max(read_json(self.session)["number"], self.newest_drawn())
        if newest > session:
            raise StaleSession(f"session {newest} has taken over from session {session}")
