"""Every image looked at once before the start: digest, decodable, size, duplicates.

What is returned are findings, never pixels or labels.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagehash
import pandas as pd
from PIL import Image, UnidentifiedImageError

from trainable.data import upright
from trainable.files import write_atomically

LOG = logging.getLogger(__name__)
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
class Audit:
    """What a look at every image found."""

    images: pd.DataFrame
    """file, bytes, changed_ns, sha256, width and height in pixels, problem ("" where there is none), pixels (SHA-256 of
    the decoded image) and perceptual (its pHash in 64 hexadecimal digits)."""
    newly_read: int
    """How many files were opened; the others had been looked at before and had not changed since."""

    @property
    def problems(self) -> list[tuple[str, str]]:
        """(file, what is wrong with it) of every image that can't be used."""
        bad = self.images[self.images["problem"] != ""]
        return list(zip(bad["file"], bad["problem"], strict=True))

    @property
    def sound(self) -> "Audit":
        """Without the images that can't be used."""
        rows = self.images[self.images["problem"] == ""]
        return Audit(rows.reset_index(drop=True), self.newly_read)

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


def audit(
    folder: Path,
    files: Sequence[str],
    memory: Path,
    progress: Callable[[int], None] = lambda count: None,
) -> Audit:
    """Look at `files` in `folder`; what `memory` (a folder) remembers with size and time unchanged is not read again.

    `progress` is called with the number of images done since its last call.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    remembered = memory / f"audit-{name}.parquet"
    known = _recall(remembered)
    found: dict[str, tuple[object, ...]] = {}
    fresh: list[tuple[str, int, int]] = []
    for file in files:
        try:
            facts = os.stat(folder / file)
            size, changed = facts.st_size, facts.st_mtime_ns
        except OSError:
            size, changed = -1, -1
        before = known.get(file)
        if before is not None and before[1:3] == (size, changed) and size >= 0:
            found[file] = before
        else:
            fresh.append((file, size, changed))
    progress(len(found))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(lambda facts: _look(folder, *facts), fresh, chunksize=32):
            found[str(row[0])] = row
            progress(1)
    images = pd.DataFrame([found[file] for file in files], columns=COLUMNS)
    if fresh:
        _remember(remembered, list({**known, **found}.values()))
    return Audit(images, newly_read=len(fresh))


def _remember(path: Path, rows: list[tuple[object, ...]]) -> None:
    buffer = BytesIO()
    pd.DataFrame(rows, columns=COLUMNS).to_parquet(buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        LOG.warning(
            "%s can't be written, so every image is looked at again next time: %s", path, error
        )


def _recall(path: Path) -> dict[str, tuple[object, ...]]:
    try:
        rows = pd.read_parquet(path)[COLUMNS]
    except (OSError, ValueError, KeyError):  # never made, or damaged: look again
        return {}
    return {row[0]: row for row in rows.itertuples(index=False, name=None)}


def _look(folder: Path, file: str, size: int, changed_ns: int) -> tuple[object, ...]:
    """One row of `COLUMNS`; the file is read once, and from that decoded as for training."""
    digest = ""

    def bad(problem: str) -> tuple[object, ...]:
        return file, size, changed_ns, digest, 0, 0, problem, "", ""

    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        return bad(f"can't be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return bad("is empty")
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            colours = upright(image)
    except UnidentifiedImageError:  # its text names a buffer in memory
        return bad("is no readable image: of no known format")
    except Exception as error:  # Pillow raises many kinds for a damaged file
        return bad(f"is no readable image: {error}")
    pixels = hashlib.sha256(f"{colours.size}".encode() + colours.tobytes()).hexdigest()
    perceptual = str(imagehash.phash(colours, hash_size=16))
    return file, size, changed_ns, digest, width, height, "", pixels, perceptual
