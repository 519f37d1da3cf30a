"""Where the images of a table are, and the table of images, in the layouts that people have."""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainable.config import RequestError
from trainable.data.names import Matched, Step, match, normal, steps
from trainable.data.reading import IMAGE_SUFFIXES, TABLE_SUFFIXES

SIDE_FILES: Final = ("list_eval_partition", "list_landmarks", "list_bbox", "identity_celeba")
"""How files begin that lie beside CelebA's table and are none."""


@dataclass(frozen=True)
class FoundImages:
    """The folder of a table's images, and the image of each row."""

    folder: Path
    rows: Matched
    beyond: int
    """Images there that the table does not name."""


def files_below(root: Path, deep: bool = True) -> Iterator[str]:
    """Every file in `root` and, with `deep`, the folders below it, by its name from there; links are followed once."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen or not deep:
            subfolders.clear()
        if (here.st_dev, here.st_ino) in seen:
            continue
        seen.add((here.st_dev, here.st_ino))
        inner = os.path.relpath(folder, root)
        for name in files:
            yield name if inner == "." else posixpath.join(inner.replace(os.sep, "/"), name)


def find_images(root: Path, names: Sequence[str]) -> FoundImages:
    """`root` where it holds most of the images that `names` name, else the folder below it that holds the most.

    Raises:
        RequestError: none is there, or several folders hold as many.
    """
    rows = [normal(name) for name in names]
    folder = root if _holds_most(root, rows) else _fullest(root, rows, list(files_below(root)))
    there = list(files_below(folder))
    found = match(rows, _where_named(there, rows))
    taken = set(found.found)
    beyond = sum(is_image(name) and name not in taken for name in there)
    return FoundImages(folder, found, beyond)


def _where_named(files: Sequence[str], rows: Sequence[str]) -> list[str]:
    """The files in the folder itself, and in folders that rows name: a thumbnail in another stands for no image."""
    folders = {""}
    for name in {posixpath.dirname(name) for name in rows}:
        parts = name.casefold().strip("/").split("/")
        folders |= {"/".join(parts[depth:]) for depth in range(len(parts))}
    return [name for name in files if posixpath.dirname(name).casefold() in folders]


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _holds_most(folder: Path, rows: Sequence[str]) -> bool:
    """Without looking further: a folder that was named, and holds what the table names, is the one."""
    there = set(files_below(folder, deep=False))
    return 2 * sum(name in there for name in rows) > len(rows)


def _fullest(root: Path, rows: Sequence[str], files: Sequence[str]) -> Path:
    """The folder that holds most of the rows' images by the strictest step that finds half of them, else any."""
    best: list[str] = []
    for step in steps(rows):
        held = _held(rows, files, step)
        most = max(held.values(), default=0)
        fullest = sorted(folder for folder, count in held.items() if count == most)
        if 2 * most >= len(rows):
            best = fullest
            break
        best = best or fullest
    different: dict[str, str] = {}
    for name in best:
        different.setdefault(os.path.realpath(root / name), name)
    if len(different) > 1:
        some = [str(root / name) for name in different.values()]
        raise RequestError(
            f"one folder must hold the images that the table names, but {' and '.join(some[:3])} hold as many of them; "
            f"name one as data.images"
        )
    if not different:
        raise RequestError(
            f"data.images must hold the images that the table names, but none of {', '.join(rows[:3])}, … "
            f"is in {root} or a folder below it"
        )
    return root / best[0]


def _held(rows: Sequence[str], files: Sequence[str], step: Step) -> Counter[str]:
    """How many of the rows' images each folder holds."""
    single = {key for key, count in Counter(map(step.row, rows)).items() if key and count == 1}
    found: set[tuple[str, str]] = set()
    for file in files:
        if step.said and not is_image(file):  # captions lie beside images of the same names
            continue
        parts = file.split("/")
        depths = range(len(parts)) if step.looks_inside else [len(parts) - 1]
        for depth in depths:
            key = step.file("/".join(parts[depth:]))
            if key in single:
                found.add(("/".join(parts[:depth]), str(key)))
    return Counter(folder for folder, _ in found)


def find_table(images: Path, root: Path) -> Path:
    """The table that lies beside the images, or with them in their zip, under one of the names that people have.

    Raises:
        RequestError: none is there, or several and none has a known name.
    """
    folders = list(dict.fromkeys([root, images.parent, root.parent, *_inner(root)]))
    known = ["list_attr_celeba.csv", "list_attr_celeba.txt"]
    known += [f"{images.stem}{suffix}" for suffix in TABLE_SUFFIXES]
    for folder in (*folders, root.parent.parent):  # Kaggle's images lie two folders deep
        for name in known:
            if (folder / name).is_file():
                return folder / name
    for folder in folders:
        tables = sorted(each for each in folder.iterdir() if _may_be_table(each))
        if len(tables) == 1:
            return tables[0]
        if tables:
            raise RequestError(
                f"data.table must name the table of the images, since {folder} holds several: "
                f"{', '.join(each.name for each in tables[:5])}"
            )
    raise RequestError(
        f"data.table must name the table of the images, since none of {', '.join(known[:3])} "
        f"and no single table ({', '.join(TABLE_SUFFIXES)}) lies in {' or '.join(map(str, folders))}"
    )


def _inner(root: Path) -> list[Path]:
    """Folders in `root` and in those, as a zip may have them."""
    first = folders_in(root)
    return [*first, *(inner for each in first for inner in folders_in(each))]


def folders_in(folder: Path) -> list[Path]:
    """By name; links too."""
    with os.scandir(folder) as entries:
        return sorted(Path(each.path) for each in entries if each.is_dir())


def _may_be_table(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(TABLE_SUFFIXES) and not name.startswith(SIDE_FILES) and path.is_file()
