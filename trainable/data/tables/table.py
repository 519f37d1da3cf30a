"""The image table in any common layout, its labels, and where its images are."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from trainable.config import DataConfig
from trainable.data.archive import unpacked
from trainable.data.tables.classes import ClassFolders, class_folders
from trainable.data.tables.columns import file_column, image_columns, no_file_column
from trainable.data.tables.finding import FoundImages, find_images, find_table
from trainable.data.tables.labels import labels_of, typed
from trainable.data.tables.names import normal, some
from trainable.data.tables.reading import Sheet, read_sheet
from trainable.data.tables.sides import join_sides
from trainable.errors import RequestError, did_you_mean


@dataclass(frozen=True)
class FaceTable:
    """The rows of a table that have an image, and where those images are."""

    images: Path
    """The folder that file names are relative to."""
    table: Path | None
    """None if folders give the classes."""
    target: str
    classes: tuple[str, str]
    """What the table calls label 0 and label 1."""
    rows: pd.DataFrame
    """file, label (0 | 1), and, if known, partition (train | validation | test) and identity."""
    attributes: pd.DataFrame
    """The table's columns without the file names, one row per row of `rows`."""
    dropped: tuple[str, ...] = ()
    """Files that the table names but that were not found (`data.missing: drop`)."""
    unreadable: tuple[str, ...] = ()
    """Files that exist but can't be decoded (`data.unreadable: drop`)."""
    unlabelled: tuple[str, ...] = ()
    """Files whose row has no label (`data.missing: drop`)."""
    found: str = ""
    """How the table was read, and what its rows were joined to."""
    labelled: str = ""
    """Which values the target has, and which of them counts as 1."""
    joined: Mapping[str, str] = field(default_factory=dict)
    """What partition and identity were joined from, and for how many rows."""
    notes: tuple[str, ...] = ()
    """What was read in a way that users might not expect."""
    file_column: str | None = None
    """The table's column of file names."""

    @property
    def source(self) -> Path:
        """Where the labels come from: the table, or the folder of the class folders."""
        return self.table or self.images

    def without(self, unreadable: Collection[str]) -> "FaceTable":
        """The table without the rows of these files."""
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
        RequestError: a missing table, column or image, labels that are not two classes, a file that is named twice.
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
    """Every column of the table at `path` except the file names, which are in `column` and become the index.

    Without `column`, as in older runs, they are in the first column whose values all end like image names.

    Raises:
        RequestError: the file is not such a table.
    """
    sheet = read_sheet(path)
    named = [column] if column in sheet.frame else image_columns(sheet)
    if not named:
        raise no_file_column(sheet)
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
    column, images = file_column(sheet, root, data)
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
            f"{images.folder}: {some(lacking)}; add them, or set data.missing=drop to leave them out"
        )
    there = np.array([file is not None for file in images.rows.found])
    stays = there & ~labels.missing.to_numpy()
    if not stays.any():
        raise RequestError(
            f"at least one row of {path} must have a label and an image, but none has both"
        )
    rows = pd.DataFrame({"file": images.rows.found, "label": labels.values})[stays]
    rows = rows.reset_index(drop=True)
    _refuse_unwritable(rows["file"], images.folder)
    joined = join_sides(rows, path, root, data)
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
            f"blanks around values of {data.target!r} are ignored: {', '.join(map(repr, merged))} "
            "occur with and without them",
        )
        if merged
        else (),
        file_column=column,
    )


def _found(sheet: Sheet, column: str, images: FoundImages) -> str:
    beyond = f"; {images.beyond:,} images there are in no row" if images.beyond else ""
    return (
        f"table {sheet.path} ({sheet.how}; file names in {column!r}); images {images.folder}, "
        f"found for {images.rows.said()}{beyond}"
    )


def _refuse_cut(sheet: Sheet, data: DataConfig) -> None:
    """Refuse a table with another number of rows than it says."""
    said, rows = sheet.said_rows, len(sheet.frame)
    if said is not None and said != rows and data.row_count == "refuse":
        raise RequestError(
            f"{sheet.path} must have the {said:,} rows that its first line says, but it has {rows:,}: the file may be "
            "cut off; get the whole file, or set data.row_count=ignore to use these rows"
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
            f"(repeated {len(again):,} times in total); remove one of each"
        )


def _refuse_unwritable(files: "pd.Series[str]", folder: Path) -> None:
    """Refuse names that are not text, which can't be recorded."""
    for file in files:
        if not file.isascii() and any("\ud800" <= sign <= "\udfff" for sign in file):
            shown = file.encode("utf-8", "backslashreplace").decode()
            raise RequestError(
                f"names of images must be UTF-8, but {shown} in {folder} is not; rename it"
            )


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
