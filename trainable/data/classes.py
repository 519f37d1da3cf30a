"""Images without a table, in a folder for each class, with or without folders for the parts above them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from trainable.config import DataConfig, RequestError, did_you_mean
from trainable.data.finding import files_below, folders_in, is_image

PARTS_SAID: Final = {
    "train": "train",
    "training": "train",
    "0": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "1": "validation",
    "test": "test",
    "testing": "test",
    "2": "test",
}
"""Words for the parts of a split, in small letters; CelebA's partition file has the numbers."""


@dataclass(frozen=True)
class ClassFolders:
    """What the folders say."""

    root: Path
    """The folder that holds those of the classes, or of the parts."""
    frame: pd.DataFrame
    """Text: file (from `root`), class, and where folders say it part (train | validation | test)."""
    positive: str
    """The class that counts as 1."""


def class_folders(root: Path, data: DataConfig) -> ClassFolders | None:
    """Labels by the folders that images lie in; None where there are no such folders.

    Raises:
        RequestError: they are other than two classes, and none of them is named.
    """
    for folder in (root, *(folders_in(root) if len(folders_in(root)) == 1 else ())):
        found = _rows(folder)
        if found:
            break
    else:
        return None
    frame = pd.DataFrame(found, columns=["file", "class", "part"], dtype=object)
    if frame["part"].isna().all():
        frame = frame.drop(columns="part")
    classes = sorted(frame["class"].unique())
    if len(classes) < 2:
        return None
    return ClassFolders(folder, frame, _positive(classes, data, folder))


def _rows(folder: Path) -> list[tuple[str, str, str | None]]:
    """File, class and part of each image in `folder`; none where images lie elsewhere than in class folders."""
    inner = folders_in(folder)
    parts = {each.name: PARTS_SAID.get(each.name.lower()) for each in inner}
    parted = bool(inner) and all(parts.values())
    depth = 3 if parted else 2
    rows: list[tuple[str, str, str | None]] = []
    for file in sorted(filter(is_image, files_below(folder))):
        names = file.split("/")
        if len(names) < depth:
            return []
        rows.append((file, names[depth - 2], parts[names[0]] if parted else None))
    return rows


def _positive(classes: list[str], data: DataConfig, folder: Path) -> str:
    """`data.positive` or, where a class is called so, `data.target`; else the later of two by letters."""
    if data.positive is not None:
        if data.positive not in classes:
            raise RequestError(
                f"data.positive must be one of the class folders {', '.join(classes[:5])} in {folder}, "
                f"but it is {data.positive!r}{did_you_mean(data.positive, classes)}"
            )
        return data.positive
    same = [name for name in classes if name.casefold() == data.target.casefold()]
    if data.target in classes or len(same) == 1:
        return data.target if data.target in classes else same[0]
    if len(classes) > 2:
        some = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
        raise RequestError(
            f"of the {len(classes)} class folders in {folder} ({some}), "
            f"data.target must name the one that counts as 1, but it is {data.target!r}"
            f"{did_you_mean(data.target, classes)}"
        )
    return classes[1]
