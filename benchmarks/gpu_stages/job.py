"""The input of every stage, and where it writes its results."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Note = Callable[..., None]
"""Adds named figures to a stage's results; they are on disk when it returns."""


@dataclass(frozen=True)
class Job:
    """One run of the benchmark."""

    device: str
    """cuda | cpu"""
    folder: Path
    """For drawn faces, stores and run folders; deleted at the end."""
    training: int
    validation: int
    test: int
    image_size: int
    width: float
    head: str
    cpus: int

    @property
    def faces(self) -> Path:
        return self.folder / "drawn"

    @property
    def table(self) -> Path:
        return self.faces / "list_attr_celeba.csv"

    @property
    def store(self) -> Path:
        """The store that `fill` fills and later stages use."""
        return self.folder / "store"

    @property
    def half(self) -> str:
        """The half precision of the device; bfloat16 on a CPU, which is slow in it."""
        from trainable.hardware.device import device_of

        found = device_of(self.device).half()
        return "bfloat16" if found == "float32" else found

    def write(self, path: Path) -> None:
        write_json(path, asdict(self) | {"folder": str(self.folder)})

    @staticmethod
    def read(path: Path) -> "Job":
        facts = json.loads(path.read_text())
        return Job(**facts | {"folder": Path(facts["folder"])})


def with_project() -> dict[str, str]:
    """An environment in which a program finds this project, installed or not."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def write_json(path: Path, content: Any) -> None:
    """Write all of it or nothing, even if this process is killed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(path)


def note_to(path: Path) -> Note:
    """A note that keeps the figures in a JSON file."""
    found: dict[str, Any] = {}

    def note(**figures: Any) -> None:
        found.update(figures)
        write_json(path, found)

    return note


def last_line(error: BaseException) -> str:
    """The kind of error, and the beginning of its message."""
    said = (str(error).strip() or "no text").splitlines()[0]
    return f"{type(error).__name__}: {said[:300]}"
