"""The image table in any of the layouts that people have, and where its images are."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from trainable.config import DataConfig, RequestError, did_you_mean
from trainable.data.archive import unpacked

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
OFFICIAL_PARTS: Final = (
    "train",
    "validation",
    "test",
)  # what 0, 1 and 2 mean in CelebA's partition file


@dataclass(frozen=True)
class FaceTable:
    """The rows of a table that have an image, and where those images are."""

    images: Path
    """The folder that file names are relative to."""
    table: Path
    target: str
    classes: tuple[str, str]
    """What the table calls label 0 and label 1."""
    rows: pd.DataFrame
    """file, label (0 | 1), where known partition (train | validation | test) and identity."""
    attributes: pd.DataFrame
    """The table as it was read, one row a row of `rows`."""
    dropped: tuple[str, ...] = ()
    """Files that the table names and nobody found (`data.missing: drop`)."""
    unreadable: tuple[str, ...] = ()
    """Files that are there and can't be decoded (`data.unreadable: drop`)."""

    def without(self, unreadable: Collection[str]) -> "FaceTable":
        """The table less the rows of these files."""
        stays = ~self.rows["file"].isin(unreadable)
        return replace(
            self,
            rows=self.rows[stays].reset_index(drop=True),
            attributes=self.attributes[stays.to_numpy()].reset_index(drop=True),
            unreadable=tuple(self.rows["file"][~stays]),
        )


def open_table(config: DataConfig) -> FaceTable:
    """Read the table, find its images and check both.

    Raises:
        RequestError: a missing table, column or image, labels other than two values, a duplicate file name.
    """
    root = unpacked(config.images)
    path = config.table or find_table(config.images, root)
    if not path.is_file():
        raise RequestError(
            f"data.table must be a CSV or a CelebA .txt, but there is no file {path}"
        )
    frame = read_table(path)
    if config.target not in frame.columns:
        hint = did_you_mean(config.target, frame.columns)
        raise RequestError(
            f"data.target must be a column of {path}, but it has no column {config.target!r}{hint}"
        )
    name_column = _file_column(frame, path)
    files = frame[name_column].astype(str)
    _refuse_duplicates(files, path)
    labels, classes = _labels(frame[config.target], config, path)
    images = find_images(root, list(files))
    there = _present(images, files)
    missing = list(files[~there])
    if missing and config.missing == "refuse":
        raise RequestError(
            f"every row of {path} must have an image, but {len(missing):,} of {len(files):,} have none in "
            f"{images}: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}; "
            "data.missing=drop goes on without them"
        )
    rows = pd.DataFrame({"file": files, "label": labels})
    for column, found in (
        ("partition", _partition(path, root)),
        ("identity", _identity(path, root)),
    ):
        if found is not None:
            rows[column] = rows["file"].map(found)
    return FaceTable(
        images=images,
        table=path,
        target=config.target,
        classes=classes,
        rows=rows[there].reset_index(drop=True),
        attributes=frame[there].drop(columns=name_column).reset_index(drop=True),
        dropped=tuple(missing),
    )


def attributes_by_file(path: Path) -> pd.DataFrame:
    """Every column of the table at `path` but the file names, which are the index.

    Raises:
        RequestError: the file is no such table.
    """
    frame = read_table(path)
    name = _file_column(frame, path)
    return frame.drop(columns=name).set_index(frame[name].astype(str))


def find_table(images: Path, root: Path) -> Path:
    """The table that lies beside the images, under one of the names that people have.

    Raises:
        RequestError: none is there, or several and none has a known name.
    """
    folders = list(dict.fromkeys([root, images.parent, root.parent]))
    names = ["list_attr_celeba.csv", "list_attr_celeba.txt", f"{images.stem}.csv"]
    for folder in (*folders, root.parent.parent):  # Kaggle's images lie two folders deep
        for name in names:
            if (folder / name).is_file():
                return folder / name
    for folder in folders:
        tables = sorted(folder.glob("*.csv"))
        if len(tables) == 1:
            return tables[0]
    raise RequestError(
        f"data.table must name the table of the images, since none of {', '.join(names)} "
        f"and no single CSV lies in {' or '.join(map(str, folders))}"
    )


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, or CelebA's own .txt: a count, the attribute names, then rows that begin with the file name.

    Raises:
        RequestError: the file is no such table.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first, second = lines.readline().strip(), lines.readline().split()
    if first.isdigit():
        frame = _read_csv(path, sep=r"\s+", skiprows=2, header=None)
        width = frame.shape[1]
        if len(second) not in (width - 1, width):
            raise RequestError(
                f"line 2 of {path} must name the {width - 1} columns after the file name, "
                f"but it names {len(second)}"
            )
        frame.columns = pd.Index(["image_id", *second][-width:])
    else:
        frame = _read_csv(path)
    if frame.empty:
        raise RequestError(f"{path} must have rows, but it has none")
    return frame


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """What pandas reads, each column as a whole: in chunks, one stray word makes half a column text."""
    try:
        frame: pd.DataFrame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, **options)
    except UnicodeDecodeError:
        raise RequestError(
            f"{path} must be UTF-8 text, but it is not; save it again as UTF-8"
        ) from None
    except ValueError as error:  # pandas' parser and empty-file errors are such
        raise RequestError(
            f"{path} must be a table, but reading it says: {str(error).strip()}"
        ) from None
    return frame


def _file_column(frame: pd.DataFrame, path: Path) -> str:
    for name in frame.columns:
        values = frame[name]
        if values.dtype.kind not in "ifb" and values.notna().all():
            if values.astype(str).str.lower().str.endswith(SUFFIXES).all():
                return str(name)
    raise RequestError(
        f"{path} must have a column of image file names ({', '.join(SUFFIXES[:3])}, …), but none of "
        f"{', '.join(map(str, frame.columns[:5]))}{', …' if frame.shape[1] > 5 else ''} is one"
    )


def _refuse_duplicates(files: "pd.Series[str]", path: Path) -> None:
    again = np.flatnonzero(files.duplicated())
    if len(again):
        row = int(again[0])
        first = int(np.flatnonzero(files == files.iloc[row])[0])
        raise RequestError(
            f"file names in {path} must be unique, but {files.iloc[row]!r} is in rows {first + 1} and {row + 1} "
            f"({len(again):,} such rows); remove one of each"
        )


def _labels(
    column: "pd.Series[int]", config: DataConfig, path: Path
) -> tuple["pd.Series[int]", tuple[str, str]]:
    where = f"column {config.target!r} of {path}"
    if column.isna().any():
        row = int(np.flatnonzero(column.isna())[0])
        raise RequestError(f"{where} must have a value in every row, but row {row + 1} has none")
    values = sorted(column.unique().tolist())
    if len(values) != 2:
        shown = ", ".join(map(repr, values[:5])) + (", …" if len(values) > 5 else "")
        raise RequestError(f"{where} must have two values, but it has {len(values)}: {shown}")
    if config.positive is not None:
        named = [value for value in values if str(value) == config.positive]
        if not named:
            raise RequestError(
                f"data.positive must be one of the values {values[0]!r} and {values[1]!r} of {where}, "
                f"but it is {config.positive!r}"
            )
        values.sort(key=lambda value: value == named[0])
    return (column == values[1]).astype("int64"), (str(values[0]), str(values[1]))


def find_images(root: Path, files: Sequence[str]) -> Path:
    """`root` or the first subfolder of it where any of `files` lie.

    Raises:
        RequestError: none is there.
    """
    probe, wanted = files[:20], set(files)
    for folder, subfolders, here in os.walk(root):
        subfolders.sort()
        if not wanted.isdisjoint(here) or any((Path(folder) / name).is_file() for name in probe):
            return Path(folder)
    raise RequestError(
        f"data.images must hold the images that the table names, but none of {', '.join(probe[:3])}, … "
        f"is in {root} or a folder below it"
    )


def _present(images: Path, files: "pd.Series[str]") -> "pd.Series[bool]":
    folders = {str(Path(name).parent) for name in files}
    there = {
        os.path.normpath(os.path.join(folder, name))
        for folder in folders
        if (images / folder).is_dir()
        for name in os.listdir(images / folder)
    }
    return files.map(lambda name: os.path.normpath(name) in there)


def _beside(table: Path, root: Path, *names: str) -> Path | None:
    for folder in (table.parent, root, root.parent):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def _partition(table: Path, root: Path) -> "dict[str, str] | None":
    path = _beside(table, root, "list_eval_partition.csv", "list_eval_partition.txt")
    if path is None:
        return None
    frame = _two_columns(path)
    unknown = set(frame.iloc[:, 1]) - {0, 1, 2}
    if unknown:
        raise RequestError(
            f"{path} must hold 0, 1 and 2, but it holds {sorted(map(str, unknown))[0]}"
        )
    return {str(file): OFFICIAL_PARTS[int(part)] for file, part in frame.itertuples(index=False)}


def _identity(table: Path, root: Path) -> "dict[str, int] | None":
    path = _beside(table, root, "identity_CelebA.txt")
    if path is None:
        return None
    return {str(file): int(who) for file, who in _two_columns(path).itertuples(index=False)}


def _two_columns(path: Path) -> pd.DataFrame:
    frame = _read_csv(path) if path.suffix == ".csv" else _read_csv(path, sep=r"\s+", header=None)
    if frame.shape[1] != 2 or frame.empty or frame.iloc[:, 1].dtype.kind not in "iu":
        raise RequestError(
            f"{path} must hold a file name and a number in each row, but it does not"
        )
    return frame
