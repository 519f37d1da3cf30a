"""The image table in any of the layouts that people have, its labels, and where its images are."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from trainable.config import DataConfig, RequestError, did_you_mean
from trainable.data.archive import unpacked
from trainable.data.classes import ClassFolders, class_folders
from trainable.data.finding import FoundImages, find_images, find_table, is_image
from trainable.data.labels import labels_of, typed
from trainable.data.names import match, normal
from trainable.data.reading import NAMES_ARE_IN, UNNAMED, Sheet, read_pairs, read_sheet

OFFICIAL_PARTS: Final = ("train", "validation", "test")
"""What 0, 1 and 2 mean in CelebA's partition file."""
PARTITION_FILES: Final = ("list_eval_partition.csv", "list_eval_partition.txt")
DISTINCT: Final = 0.9
"""Share of a column's values that differ from each other, where they may be file names."""
IDENTITY_FILE: Final = "identity_CelebA.txt"


@dataclass(frozen=True)
class FaceTable:
    """The rows of a table that have an image, and where those images are."""

    images: Path
    """The folder that file names are relative to."""
    table: Path | None
    """None where folders say the classes."""
    target: str
    classes: tuple[str, str]
    """What the table calls label 0 and label 1."""
    rows: pd.DataFrame
    """file, label (0 | 1), where known partition (train | validation | test) and identity."""
    attributes: pd.DataFrame
    """The table's columns but the file names, one row a row of `rows`."""
    dropped: tuple[str, ...] = ()
    """Files that the table names and nobody found (`data.missing: drop`)."""
    unreadable: tuple[str, ...] = ()
    """Files that are there and can't be decoded (`data.unreadable: drop`)."""
    unlabelled: tuple[str, ...] = ()
    """Files whose row has no label (`data.missing: drop`)."""
    found: str = ""
    """How the table was read, and what its rows were joined to."""
    labelled: str = ""
    """Which values the target has, and which of them counts as 1."""
    joined: Mapping[str, str] = field(default_factory=dict)
    """What partition and identity were joined from, and how many rows."""
    notes: tuple[str, ...] = ()
    """What was read in a way that not everybody would expect."""
    file_column: str | None = None
    """The table's column of file names."""

    @property
    def source(self) -> Path:
        """Where the labels come from: the table, or the folder of the class folders."""
        return self.table or self.images

    def without(self, unreadable: Collection[str]) -> "FaceTable":
        """The table less the rows of these files."""
        stays = ~self.rows["file"].isin(unreadable)
        return replace(
            self,
            rows=self.rows[stays].reset_index(drop=True),
            attributes=self.attributes[stays.to_numpy()].reset_index(drop=True),
            unreadable=tuple(self.rows["file"][~stays]),
        )


def open_table(data: DataConfig) -> FaceTable:
    """Read the table, find its images and check both.

    Raises:
        RequestError: a missing table, column or image, labels other than two classes, a file that is named twice.
    """
    root = unpacked(data.images)
    if data.table is not None:
        return _table(data.table, root, data)
    try:
        path = find_table(data.images, root)
    except RequestError:
        folders = class_folders(root, data)
        if folders is None:
            raise
        return _of_folders(folders, data)
    return _table(path, root, data)


def attributes_by_file(path: Path, column: str | None = None) -> pd.DataFrame:
    """Every column of the table at `path` but the file names, which are in `column` and become the index.

    Without `column`, as runs before 0.2 have it, they are in the first column whose values all end as images do.

    Raises:
        RequestError: the file is no such table.
    """
    sheet = read_sheet(path)
    named = [column] if column in sheet.frame else _image_columns(sheet)
    if not named:
        raise _no_file_column(sheet)
    names = sheet.frame[named[0]].map(normal)
    return typed(sheet.frame.drop(columns=named[0])).set_index(names)


# ---------------------------------------------------------------- a table


def _table(path: Path, root: Path, data: DataConfig) -> FaceTable:
    if not path.is_file():
        raise RequestError(
            f"data.table must be a table (CSV, CelebA's .txt, Parquet or Excel), but there is no file {path}"
        )
    sheet = read_sheet(path)
    _refuse_cut(sheet, data)
    if data.target not in sheet.frame:
        hint = did_you_mean(data.target, sheet.frame.columns)
        raise RequestError(
            f"data.target must be a column of {path}, but it has no column {data.target!r}{hint}"
        )
    column, images = _files(sheet, root, data)
    if column == data.target:
        raise RequestError(
            f"data.target must be a column of labels, but {column!r} of {path} holds the file names"
        )
    names = sheet.frame[column]
    _refuse_nameless(names, path)
    labels = labels_of(sheet.frame[data.target], data, f"column {data.target!r} of {path}")
    images = images or find_images(root, list(names))
    lacking = images.rows.lacking(list(names))
    if lacking and data.missing == "refuse":
        raise RequestError(
            f"every row of {path} must have an image, but {len(lacking):,} of {len(names):,} have none in "
            f"{images.folder}: {_some(lacking)}; data.missing=drop goes on without them"
        )
    there = np.array([file is not None for file in images.rows.found])
    stays = there & ~labels.missing.to_numpy()
    if not stays.any():
        raise RequestError(f"some row of {path} must have a label and an image, but none has both")
    rows = pd.DataFrame({"file": images.rows.found, "label": labels.values})[stays]
    rows = rows.reset_index(drop=True)
    _refuse_unwritable(rows["file"], images.folder)
    joined = _join_sides(rows, path, root, data)
    merged = sheet.merged.get(data.target)
    attributes = typed(sheet.frame.drop(columns=column)[stays].reset_index(drop=True))
    return FaceTable(
        images=images.folder,
        table=path,
        target=data.target,
        classes=labels.classes,
        rows=rows,
        attributes=attributes,
        dropped=tuple(lacking),
        unlabelled=tuple(names[there & labels.missing.to_numpy()]),
        found=_found(sheet, column, images),
        labelled=labels.said(stays),
        joined=joined,
        notes=(
            f"blanks around values of {data.target!r} are left out: {', '.join(map(repr, merged))} "
            "are there with and without them",
        )
        if merged
        else (),
        file_column=column,
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _found(sheet: Sheet, column: str, images: FoundImages) -> str:
    beyond = f"; {images.beyond:,} images there are in no row" if images.beyond else ""
    return (
        f"table {sheet.path} ({sheet.how}; file names in {column!r}); images {images.folder}, "
        f"found for {images.rows.said()}{beyond}"
    )


def _refuse_cut(sheet: Sheet, data: DataConfig) -> None:
    """Has the table as many rows as it says?"""
    said, rows = sheet.said_rows, len(sheet.frame)
    if said is not None and said != rows and data.row_count == "refuse":
        raise RequestError(
            f"{sheet.path} must have the {said:,} rows that its first line says, but it has {rows:,}: the file may be "
            "cut off; get it whole, or data.row_count=ignore goes on with these"
        )


def _refuse_nameless(names: "pd.Series[str]", path: Path) -> None:
    empty = np.flatnonzero(names == "")
    if len(empty):
        raise RequestError(
            f"every row of {path} must have a file name, but {len(empty):,} have none, row {int(empty[0]) + 1} first"
        )
    same = names.map(normal)
    again = np.flatnonzero(same.duplicated())
    if len(again):
        row = int(again[0])
        first = int(np.flatnonzero(same == same.iloc[row])[0])
        raise RequestError(
            f"file names in {path} must be unique, but {names.iloc[row]!r} is in rows {first + 1} and {row + 1} "
            f"({len(again):,} such rows); remove one of each"
        )


def _refuse_unwritable(files: "pd.Series[str]", folder: Path) -> None:
    """Names that are no text can't be put on record."""
    for file in files:
        if not file.isascii() and any("\ud800" <= sign <= "\udfff" for sign in file):
            shown = file.encode("utf-8", "backslashreplace").decode()
            raise RequestError(
                f"names of images must be UTF-8, but {shown} in {folder} is not; rename it"
            )


# ---------------------------------------------------------------- which column has the file names


def _files(sheet: Sheet, root: Path, data: DataConfig) -> tuple[str, FoundImages | None]:
    """The column of file names, and its images where it was known by them.

    Raises:
        RequestError: no column is one, or several are.
    """
    if data.file_column is not None:
        if data.file_column not in sheet.frame:
            hint = did_you_mean(data.file_column, sheet.frame.columns)
            raise RequestError(
                f"data.file_column must be a column of {sheet.path}, but it has no column {data.file_column!r}{hint}"
            )
        return data.file_column, None
    named = _image_columns(sheet)
    known = [name for name in named or sheet.frame.columns if name.lower() in NAMES_ARE_IN]
    for certain in (named, known):
        if len(certain) == 1:
            return certain[0], None
    found: dict[str, FoundImages] = {}
    for name in named or _columns_but(sheet, data.target):
        with suppress(RequestError):
            found[name] = find_images(root, list(sheet.frame[name]))
    enough = (
        max((each.rows.count for each in found.values()), default=0) if named else len(sheet.frame)
    )
    best = [name for name, each in found.items() if each.rows.count >= enough]
    if len(best) == 1:
        return best[0], found[best[0]]
    if not named and not found:
        raise _no_file_column(sheet)
    maybe = best or list(found) or named
    raise RequestError(
        f"one column of {sheet.path} must hold the names of the images, but whether {' or '.join(maybe)} does is not "
        "certain; name it as data.file_column"
    )


def _columns_but(sheet: Sheet, target: str) -> list[str]:
    """Columns that may hold names without a suffix: only one that names an image in every row is believed to.

    One without a name is an index: its numbers are near those of images, and shift every label.
    """
    return [name for name in sheet.frame.columns if name != target and not name.startswith(UNNAMED)]


def _no_file_column(sheet: Sheet) -> RequestError:
    columns = list(sheet.frame.columns)
    return RequestError(
        f"{sheet.path} must have a column of file names of images, but none of {_some(columns)} is one; "
        "data.file_column names it"
    )


def _image_columns(sheet: Sheet) -> list[str]:
    """Columns whose values, where there are any, all end as the names of images do."""
    return [
        str(name)
        for name, column in sheet.frame.items()
        if all(value == "" or is_image(value) for value in column) and column.any()
    ]


# ---------------------------------------------------------------- files beside the table


def _join_sides(rows: pd.DataFrame, table: Path, root: Path, data: DataConfig) -> dict[str, str]:
    """Add the columns partition and identity to `rows` where their files lie beside the table; what was joined."""
    joined = {}
    files = list(rows["file"])
    path = _beside(table, root, *PARTITION_FILES)
    if path is not None:
        parts = read_pairs(path)
        unknown = set(parts.values()) - {0, 1, 2}
        if unknown:
            raise RequestError(f"{path} must hold 0, 1 and 2, but it holds {min(unknown)}")
        found, said = _joined(files, parts)
        rows["partition"] = [None if part is None else OFFICIAL_PARTS[part] for part in found]
        joined["partition"] = f"{path.name}: {said}"
    path = _beside(table, root, IDENTITY_FILE)
    if path is not None and data.identities != "ignore":
        found, said = _joined(files, read_pairs(path))
        lacking = [file for file, who in zip(files, found, strict=True) if who is None]
        if lacking and data.identities == "refuse":
            raise RequestError(
                f"{path} must name every image of {table}, but it lacks {len(lacking):,} of {len(files):,}: "
                f"{_some(lacking)}; data.identities=incomplete takes each of them for a person of its own, "
                "data.identities=ignore goes on without that file"
            )
        rows["identity"] = pd.to_numeric(pd.Series(found, index=rows.index, dtype="object"))
        joined["identity"] = f"{path.name}: {said}"
    return joined


def _joined(files: Sequence[str], by_name: Mapping[str, int]) -> tuple[list[int | None], str]:
    """The number of each of `files`, and how many rows were joined."""
    joined = match(files, by_name, numbers=False)
    found = [None if name is None else by_name[name] for name in joined.found]
    beyond = len(by_name) - joined.count
    return found, joined.said() + (f"; {beyond:,} entries there are of no row" if beyond else "")


def _beside(table: Path, root: Path, *names: str) -> Path | None:
    for folder in dict.fromkeys((table.parent, root, root.parent)):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


# ---------------------------------------------------------------- class folders


def _of_folders(folders: ClassFolders, data: DataConfig) -> FaceTable:
    frame = folders.frame
    named = data.model_copy(update={"positive": folders.positive, "missing_values": ()})
    labels = labels_of(frame["class"], named, f"the folders in {folders.root}")
    rows = pd.DataFrame({"file": frame["file"], "label": labels.values})
    _refuse_unwritable(rows["file"], folders.root)
    joined = {}
    if "part" in frame:
        rows["partition"] = frame["part"]
        joined["partition"] = f"the folders of {folders.root}: {len(rows):,} of {len(rows):,} rows"
    return FaceTable(
        images=folders.root,
        table=None,
        target=data.target,
        classes=labels.classes,
        rows=rows,
        attributes=pd.DataFrame({data.target: frame["class"]}),
        found=f"no table; {len(rows):,} images in folders by class in {folders.root}",
        labelled=labels.said(np.full(len(rows), True)),
        joined=joined,
    )
