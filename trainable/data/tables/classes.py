"""Images without a table: in one folder per class, with or without folders for the parts above them."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from trainable.config import DataConfig
from trainable.data.tables.finding import files_below, folders_in, is_image
from trainable.data.tables.names import some, without_suffix
from trainable.errors import RequestError, did_you_mean

PARTS_SAID: Final = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}
"""Words for the parts of a split, in lower case."""
PART_NUMBERS: Final = {"0": "train", "1": "validation", "2": "test"}
"""As in CelebA's partition file; folders with these names are classes."""
TWINS: Final = 0.5
"""Above this share of the smaller class's names in common, two folders are not taken for classes; assumed."""


def part_said(text: str, numbers: bool = False) -> str | None:
    """The part that a word names, `training_set` too; None if it names none."""
    word = re.sub(r"[-_ ]?(set|data|images)$", "", text.strip().casefold())
    if numbers and re.fullmatch(r"[0-2](\.0+)?", word):
        return PART_NUMBERS[word[0]]
    return PARTS_SAID.get(word)


@dataclass(frozen=True)
class ClassFolders:
    """The labels and parts that folders give."""

    root: Path
    """The folder that holds the folders of the classes, or of the parts."""
    frame: pd.DataFrame
    """Text: file (relative to `root`), class, and, if folders give it, part (train | validation | test)."""
    positive: str
    """The class that counts as 1."""


def class_folders(root: Path, data: DataConfig) -> ClassFolders | None:
    """Labels by the folders that images are in; None if there are no such folders.

    Raises:
        RequestError: there are not two classes, and none is named; or they may not be classes.
    """
    folder = root
    while len(inner := folders_in(folder)) == 1 and not _images_in(folder):
        folder = inner[0]
    parts = {each.name: part_said(each.name) for each in inner}
    parted = bool(inner) and all(parts.values())
    if len(inner) < 2 or (any(parts.values()) and not parted):
        return None
    rows, astray = _rows(folder, parts if parted else {})
    classes = sorted({name for _, name, _ in rows})
    if len(classes) < 2:
        return None
    if astray:
        raise RequestError(
            f"data.table must name a table, or every image must be in the folder of its class, but {folder} has "
            f"classes {some(classes)} and {len(astray):,} images beside them: {some(astray)}; move these images away"
        )
    frame = pd.DataFrame(rows, columns=["file", "class", "part"], dtype=object)
    if not parted:
        frame = frame.drop(columns="part")
    return ClassFolders(folder, frame, _positive(frame, classes, data, folder))


def _images_in(folder: Path) -> bool:
    return any(map(is_image, files_below(folder, deep=False)))


def _rows(
    folder: Path, parts: Mapping[str, str | None]
) -> tuple[list[tuple[str, str, str | None]], list[str]]:
    """File, class and part of each image in `folder`, and the images outside the class folders."""
    depth = 1 if parts else 0
    rows: list[tuple[str, str, str | None]] = []
    astray = []
    for file in sorted(filter(is_image, files_below(folder))):
        names = file.split("/")
        if len(names) < depth + 2:
            astray.append(file)
        else:
            rows.append((file, names[depth], parts.get(names[0])))
    return rows, astray


def _positive(frame: pd.DataFrame, classes: list[str], data: DataConfig, folder: Path) -> str:
    """`data.positive`, or `data.target` if a class has that name; otherwise the second of two in alphabetical order."""
    if data.positive is not None:
        if data.positive not in classes:
            raise RequestError(
                f"data.positive must be one of the class folders {some(classes)} in {folder}, "
                f"but it is {data.positive!r}{did_you_mean(data.positive, classes)}"
            )
        return data.positive
    same = [name for name in classes if name.casefold() == data.target.casefold()]
    if data.target in classes or len(same) == 1:
        return data.target if data.target in classes else same[0]
    if len(classes) > 2:
        raise RequestError(
            f"of the {len(classes)} class folders in {folder} ({some(classes)}), data.target must name the one that "
            f"counts as 1, but it is {data.target!r}{did_you_mean(data.target, classes)}"
        )
    if "part" not in frame and _are_twins(frame, classes):
        raise RequestError(
            f"data.table must name a table, or {' and '.join(classes)} in {folder} must be two classes, but they hold "
            f"files with the same names, like two versions of one image; if they are classes, "
            f"set data.positive={classes[1]}"
        )
    return classes[1]


def _are_twins(frame: pd.DataFrame, classes: list[str]) -> bool:
    """Do the files of two folders have the same names?"""
    one, other = (
        {without_suffix(posixpath.basename(file)) for file in frame["file"][frame["class"] == name]}
        for name in classes
    )
    return len(one & other) > TWINS * min(len(one), len(other))
