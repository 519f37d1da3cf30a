"""Finds the images of a table, and the table of images, in common layouts."""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainable.data.tables.names import JoinStep, Matched, match, normal, steps
from trainable.data.tables.reading import IMAGE_SUFFIXES, TABLE_SUFFIXES
from trainable.errors import RequestError

SIDE_FILES: Final = ("list_eval_partition", "list_landmarks", "list_bbox", "identity_celeba")
"""Prefixes of files beside CelebA's table that are not tables."""


NEARLY: Final = 0.9
"""If the counts of two folders are this close, neither is chosen; assumed."""


@dataclass(frozen=True)
class FoundImages:
    """The folder of a table's images, and the image of each row."""

    folder: Path
    rows: Matched
    beyond: int
    """Images there that the table does not name."""


def files_below(root: Path, deep: bool = True) -> Iterator[str]:
    """Every file in `root` and, with `deep`, in the folders below it, by its path relative to `root`.

    Links are followed, loops are not. Hidden names are left out: those that begin with a dot, and __MACOSX.
    """
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        try:
            here = os.stat(folder)
        except OSError:  # deleted meanwhile
            continue
        again = (here.st_dev, here.st_ino) in seen
        subfolders[:] = [] if again or not deep else sorted(filter(_is_shown, subfolders))
        if again:
            continue
        seen.add((here.st_dev, here.st_ino))
        inner = os.path.relpath(folder, root)
        for name in filter(_is_shown, files):
            yield name if inner == "." else posixpath.join(inner.replace(os.sep, "/"), name)


def _is_shown(name: str) -> bool:
    return not name.startswith((".", "~$")) and name != "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """Subfolders by name, including links, without hidden ones; none if `folder` can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(each.path) for each in entries if _is_shown(each.name) and _is_folder(each)
            )
    except OSError:
        return []


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def find_images(root: Path, names: Sequence[str]) -> FoundImages:
    """`root` if it holds most of the images in `names`, otherwise the folder below it that holds the most.

    It is also `root` if the images of names without folders are spread over folders below it.

    Raises:
        RequestError: there are none, or several folders hold as many.
    """
    rows = [normal(name) for name in names]
    if not os.access(root, os.R_OK | os.X_OK):
        raise RequestError(f"data.images must be a folder that can be read, but {root} can't")
    if _holds_most(root, rows):
        return _found(root, rows, list(files_below(root)))
    files = list(files_below(root))
    held, half = _fullest(rows, files)
    if not half:
        spread = match(rows, filter(is_image, files), numbers=False)
        if spread.count > max(held.values(), default=0):
            return FoundImages(root, spread, _beyond(files, spread))
    folder = root / _chosen(root, rows, held)
    return _found(folder, rows, list(files_below(folder)))


def _found(folder: Path, rows: Sequence[str], there: Sequence[str]) -> FoundImages:
    found = match(rows, _where_named(there, rows))
    if not found.count:
        raise RequestError(
            f"the table must name images, but only some of its numbers {', '.join(rows[:3])}, … are those of images in "
            f"{folder}, which may be numbered differently; write file names into the table"
        )
    return FoundImages(folder, found, _beyond(there, found))


def _beyond(files: Sequence[str], found: Matched) -> int:
    taken = set(found.found)
    return sum(is_image(name) and name not in taken for name in files)


def _where_named(files: Sequence[str], rows: Sequence[str]) -> list[str]:
    """The files in the folder itself and in folders that rows name: a thumbnail elsewhere does not count."""
    folders = {""}
    for name in {posixpath.dirname(name) for name in rows}:
        parts = name.casefold().strip("/").split("/")
        folders |= {"/".join(parts[depth:]) for depth in range(len(parts))}
    return [name for name in files if posixpath.dirname(name).casefold() in folders]


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _holds_most(folder: Path, rows: Sequence[str]) -> bool:
    """Does `folder` itself hold most of what the table names? Then no other folder is searched."""
    there = set(files_below(folder, deep=False))
    return 2 * sum(name in there for name in rows) > len(rows)


def _fullest(rows: Sequence[str], files: Sequence[str]) -> tuple[Counter[str], bool]:
    """The rows' images by folder, by the strictest step that finds half in one, or else any; and whether it does."""
    best: Counter[str] = Counter()
    for step in steps(rows):
        held = _held(rows, files, step)
        if 2 * max(held.values(), default=0) >= len(rows):
            return held, True
        best = best or held
    return best, False


def _chosen(root: Path, rows: Sequence[str], held: Counter[str]) -> str:
    """The folder that holds the most, but `root`, which was named, if it holds nearly as many.

    Raises:
        RequestError: no folder holds any, or several hold nearly as many.
    """
    most = max(held.values(), default=0)
    nearly = sorted(folder for folder, count in held.items() if count >= NEARLY * most)
    if "" in nearly:
        return ""
    different: dict[str, str] = {}
    for name in nearly:
        different.setdefault(os.path.realpath(root / name), name)
    if len(different) > 1:
        some = [f"{root / name} ({held[name]:,})" for name in different.values()]
        raise RequestError(
            f"one folder must hold the images that the table names, but {' and '.join(some[:3])} hold about as many of "
            "them; name one as data.images"
        )
    if not different:
        raise RequestError(
            f"data.images must hold the images that the table names, but none of {', '.join(rows[:3])}, … "
            f"is in {root} or a folder below it"
        )
    return nearly[0]


def _held(rows: Sequence[str], files: Sequence[str], step: JoinStep) -> Counter[str]:
    """How many of the rows' images each folder holds."""
    single = {key for key, count in Counter(map(step.row, rows)).items() if key and count == 1}
    found: set[tuple[str, str]] = set()
    for file in files:
        if step.said and not is_image(file):  # captions are beside images with the same names
            continue
        parts = file.split("/")
        depths = range(len(parts)) if step.looks_inside else [len(parts) - 1]
        for depth in depths:
            key = step.file("/".join(parts[depth:]))
            if key in single:
                found.add(("/".join(parts[:depth]), str(key)))
    return Counter(folder for folder, _ in found)


def find_table(images: Path, root: Path) -> Path:
    """The table beside the images, or with them in their zip: in the nearest folder that has any table.

    There it has one of the known names, or is the only table.

    Raises:
        RequestError: there is none, or there are several without a known name.
    """
    known = ["list_attr_celeba.csv", "list_attr_celeba.txt"]
    known += [f"{images.stem}{suffix}" for suffix in TABLE_SUFFIXES]
    near = list(dict.fromkeys([root, images.parent, root.parent]))
    for folder in near:
        named = [folder / name for name in known if (folder / name).is_file()]
        if found := named[:1] or _tables_in(folder):
            return _only(found, folder)
    inner = [table for folder in _inner(root) for table in _tables_in(folder)]
    if inner:
        return _only(inner, root)
    for name in known[:2]:  # Kaggle's images are two folders deep
        if (root.parent.parent / name).is_file():
            return root.parent.parent / name
    raise RequestError(
        f"data.table must name the table of the images, since none of {', '.join(known[:3])} "
        f"and no single table ({', '.join(TABLE_SUFFIXES)}) is in {' or '.join(map(str, near))}"
    )


def _only(tables: Sequence[Path], folder: Path) -> Path:
    if len(tables) > 1:
        names = ", ".join(str(each.relative_to(folder)) for each in tables[:5])
        raise RequestError(
            f"data.table must name the table of the images, since {folder} holds several: {names}"
        )
    return tables[0]


def _tables_in(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if _may_be_table(each))
    except OSError:  # it can be entered but not read
        return []


def _inner(root: Path) -> list[Path]:
    """Folders in `root` and in those folders, as a zip may have."""
    first = folders_in(root)
    return [*first, *(inner for each in first for inner in folders_in(each))]


def _may_be_table(path: Path) -> bool:
    name = path.name.lower()
    return (
        name.endswith(TABLE_SUFFIXES)
        and _is_shown(name)
        and not name.startswith(SIDE_FILES)
        and path.is_file()
    )
