"""Inspects every image once before the start: digest, readability, size, duplicates.

It returns findings, never pixels or labels.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import pandas as pd

from trainable.data.decoding.decoder import Findings, findings
from trainable.data.decoding.pool import Decoders
from trainable.hardware.cpus import usable_cpus
from trainable.records.files import write_atomically

LOG = logging.getLogger(__name__)
# New files. A process takes 0.6 s to start. Then two save 0.6 ms per image against two threads, and pay from 1,000
# images; sixteen save 1.9 ms, and pay from 300. Between the two:
WORTH_PROCESSES: Final = 500
COLUMNS = [
    "file",
    "bytes",
    "changed_ns",
    "sha256",
    "width",
    "height",
    "problem",
    "pixels",
    "perceptual",
]


@dataclass(frozen=True)
class Inspection:
    """What the inspection of every image found."""

    images: pd.DataFrame
    """file, bytes, changed_ns, sha256, width and height in pixels, problem ("" if there is none), pixels (SHA-256 of
    the decoded image) and perceptual (its pHash in 64 hexadecimal digits)."""
    newly_read: int
    """How many files were read; the others were inspected before and have not changed since."""

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(file, what is wrong with it) of every image that can't be used."""
        bad = self.images[self.images["problem"] != ""]
        return list(zip(bad["file"], bad["problem"], strict=True))

    @property
    def sound(self) -> "Inspection":
        """Without the images that can't be used."""
        rows = self.images[self.images["problem"] == ""]
        return Inspection(rows.reset_index(drop=True), self.newly_read)

    @property
    def digest(self) -> str:
        """SHA-256 over every file's name and content digest, in the order of names."""
        lines = sorted(zip(self.images["file"], self.images["sha256"], strict=True))
        return hashlib.sha256(
            "".join(f"{sha}  {file}\n" for file, sha in lines).encode()
        ).hexdigest()

    def column(self, name: str) -> dict[str, str]:
        """One finding by file."""
        return dict(zip(self.images["file"], self.images[name], strict=True))


def inspect_images(
    folder: Path,
    files: Sequence[str],
    memory: Path,
    progress: Callable[[int], None] = lambda count: None,
) -> Inspection:
    """Inspect `files` in `folder`; files that `memory` (a folder) knows with the same size and time are not read again.

    `progress` is called with the number of images done since its last call.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    remembered = memory / f"inspection-{name}.parquet"
    known = _recall(remembered)
    found: dict[str, tuple[object, ...]] = {}
    fresh: list[tuple[str, int, int]] = []
    for file in files:
        try:
            stat = os.stat(folder / file)
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size, changed = -1, -1
        before = known.get(file)
        if before is not None and before[1:3] == (size, changed) and size >= 0:
            found[file] = before
        else:
            fresh.append((file, size, changed))
    progress(len(found))
    with closing(_look(folder, [file for file, *_ in fresh])) as looked:
        for facts, each in zip(fresh, looked, strict=True):
            found[facts[0]] = (*facts, *each)
            progress(1)
    images = pd.DataFrame([found[file] for file in files], columns=COLUMNS)
    if fresh:
        _remember(remembered, list({**known, **found}.values()))
    return Inspection(images, newly_read=len(fresh))


def _remember(path: Path, rows: list[tuple[object, ...]]) -> None:
    buffer = BytesIO()
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        LOG.warning(
            "%s can't be written, so every image will be read again next time: %s", path, error
        )


def _recall(path: Path) -> dict[str, tuple[object, ...]]:
    try:
        rows = pd.read_parquet(path)[COLUMNS]
    except (OSError, ValueError, KeyError):  # missing or damaged: inspect again
        return {}
    return {row[0]: row for row in rows.itertuples(index=False, name=None)}


def _look(folder: Path, files: Sequence[str]) -> Generator[Findings, None, None]:
    """Findings of every file, in order: by processes if there are CPUs and enough files for them to pay."""
    cpus = usable_cpus()
    with Decoders(cpus if len(files) >= WORTH_PROCESSES else 1) as decoders:
        if decoders.running:
            yield from decoders.look(folder, files)
            return
    with ThreadPoolExecutor(cpus) as pool:
        yield from pool.map(findings, (folder / file for file in files))
