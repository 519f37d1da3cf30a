"""Which images are for training, for validation, and for the single test."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from trainable.config import SplitConfig
from trainable.data.tables.classes import part_said
from trainable.data.tables.labels import MAYBE_MISSING
from trainable.data.tables.names import some
from trainable.data.tables.table import FaceTable
from trainable.errors import RequestError, did_you_mean

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
MOST_FOLDS: Final = 40  # parts of 2.5 % are the smallest; assumed
SHARE_TOLERANCE: Final = 0.005  # half a point of what was asked for; assumed
ALONE: Final = "alone "
FEW_VALIDATION_IMAGES: Final = 10
"""Of a class: with fewer, a validation accuracy says little; assumed."""


def make_split(table: FaceTable, config: SplitConfig) -> pd.DataFrame:
    """`table.rows` with a column `part` (train | validation | test), in the table's order.

    Two stratified steps of scikit-learn's `train_test_split` with one seed: first the test images, then the
    validation images from the rest; with `group`, folds of its `StratifiedGroupKFold`; or the parts given by the
    official partition file, folders or a column. If those have no validation part, `config.validation`, if given,
    takes that share of the training images.

    Raises:
        RequestError: a part would lack a class, or given parts are missing or incomplete.
    """
    rows = table.rows
    if config.is_given:
        part = (
            _official_parts(table) if config.official else _column_parts(table, str(config.column))
        )
        part = _with_validation(part, table, config)
    elif config.group is not None:
        part = _grouped_parts(table, config, config.group)
    else:
        _refuse_unsaid(table, config)
        part = _drawn_parts(table, config)
    split = rows.drop(columns="partition", errors="ignore").assign(part=part)
    for name in PARTS:
        found = split.loc[split["part"] == name, "label"].value_counts()
        for label in (0, 1):
            if found.get(label, 0) == 0:
                raise RequestError(
                    f"each part must hold both classes of {table.target}, but {name} has no image with "
                    f"{table.classes[label]} ({int((rows['label'] == label).sum())} of {len(rows):,} in total); "
                    "add images or change data.split"
                )
    return split


def _drawn_parts(table: FaceTable, config: SplitConfig) -> "pd.Series[str]":
    rows = table.rows
    n = len(rows)
    n_test, n_validation = round(n * config.test), round(n * config.validation)
    if min(n_test, n_validation, n - n_test - n_validation) < 2:
        raise RequestError(
            f"a split needs at least two images per part, but {n} images give "
            f"{n - n_test - n_validation} / {n_validation} / {n_test}; add images or change data.split"
        )
    part = pd.Series("train", index=rows.index)
    rest, test = _two(table, rows.index, n_test, config)
    _, validation = _two(table, rest, n_validation, config)
    part[test], part[validation] = "test", "validation"
    return part


def _two(table: FaceTable, among: "pd.Index[int]", second: int, config: SplitConfig) -> Any:
    """Rows split in two, `second` of them in the second part, both with the same shares of each class.

    Raises:
        RequestError: there are too few of a class.
    """
    from sklearn.model_selection import train_test_split  # a second to import, not for trials

    labels = table.rows["label"].loc[among]
    try:
        return train_test_split(among, test_size=second, random_state=config.seed, stratify=labels)
    except ValueError as error:
        raise RequestError(
            f"{table.target} in {table.source} can't be split with both classes in each part: {error}"
        ) from None


def _with_validation(
    part: "pd.Series[str]", table: FaceTable, config: SplitConfig
) -> "pd.Series[str]":
    """The given parts; if they have no validation images, `config.validation` takes some from training.

    Raises:
        RequestError: there are none, and `config.validation` was not given.
    """
    if (part == "validation").any():
        return part
    if "validation" not in config.model_fields_set:
        raise RequestError(
            f"a sweep needs validation images, but {given_by(table, config)} gives none; "
            "set data.split.validation=0.1 to take that share of the training images, never of the test images"
        )
    train = part.index[part == "train"]
    _, validation = _two(table, train, round(len(train) * config.validation), config)
    part = part.copy()
    part[validation] = "validation"
    return part


def given_by(table: FaceTable, config: SplitConfig) -> str:
    """What defines the parts, in words."""
    if config.column is not None:
        return f"column {config.column!r} of {table.source}"
    return table.joined.get("partition", "the partition file").partition(":")[0]


def _refuse_unsaid(table: FaceTable, config: SplitConfig) -> None:
    """Folders train, val and test define the parts, so others are not drawn silently."""
    if table.table is None and "partition" in table.rows and not config.model_fields_set:
        raise RequestError(
            f"{given_by(table, config)} split the images, so data.split must say whether to use that; "
            f"data.split=official uses those parts, data.split.seed={config.seed} draws others from all images"
        )


def add_digests(split: pd.DataFrame, images: Path) -> pd.DataFrame:
    """`split` with a column `sha256`: the digest of each file in the folder `images`, as it is now."""
    contents = ((images / file).read_bytes() for file in split["file"])
    return split.assign(sha256=[hashlib.sha256(content).hexdigest() for content in contents])


def _official_parts(table: FaceTable) -> "pd.Series[str]":
    if "partition" not in table.rows:
        raise RequestError(
            f"data.split: official needs list_eval_partition.csv or .txt beside {table.source}, but there is none; "
            "data.split.column=COLUMN takes the parts from a column instead"
        )
    part = table.rows["partition"]
    lacking = list(table.rows.loc[part.isna(), "file"])
    if lacking:
        raise RequestError(
            f"the partition file must name every image, but it lacks {len(lacking):,} of {len(part):,}: "
            f"{some(lacking)}; add them, or use another data.split"
        )
    return part


def _column_parts(table: FaceTable, column: str) -> "pd.Series[str]":
    if column not in table.attributes:
        hint = did_you_mean(column, map(str, table.attributes.columns))
        raise RequestError(
            f"data.split.column must be a column of {table.source}, but it has no column {column!r}{hint}"
        )
    words = table.attributes[column]
    part = words.map(lambda word: part_said(str(word), numbers=True), na_action="ignore")
    unknown = np.flatnonzero(part.isna())
    if len(unknown):
        row = int(unknown[0])
        given = "nothing" if pd.isna(words.iloc[row]) else repr(str(words.iloc[row]))
        raise RequestError(
            f"column {column!r} of {table.source} must say train, val or test (or 0, 1, 2) for every image, but "
            f"{len(unknown):,} say something else: {table.rows['file'].iloc[row]} has {given}"
        )
    return part


def split_said(table: FaceTable, config: SplitConfig, split: pd.DataFrame) -> str:
    """How the images were split, with how many in each part, and what was joined for it."""
    counts = split["part"].value_counts()
    said = " / ".join(f"{counts[part]:,} {part}" for part in PARTS)
    joined = ""
    if config.is_given:
        how = f"as given by {given_by(table, config)}"
        if config.official:
            joined = f", {table.joined['partition'].partition(': ')[2]}"
    else:
        how = f"drawn with seed {config.seed}"
        if config.group is not None:
            groups = _groups(table, config.group)
            alone = int(groups.str.startswith(ALONE).sum())
            how += f", {groups.nunique():,} groups by {config.group} kept whole"
            how += f", of which {alone:,} are images without one" if alone else ""
            if config.group == "identity" and "identity" in table.joined:
                joined = f" ({table.joined['identity']})"
    return f"{said}; {how}{joined}"


def _grouped_parts(table: FaceTable, config: SplitConfig, group: str) -> "pd.Series[str]":
    """Folds of whole groups, as many for test and validation as their shares need."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = _groups(table, group)
    folds, n_test, n_validation = _folds(config)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=config.seed)
    part = pd.Series("train", index=table.rows.index)
    try:
        pieces = list(splitter.split(groups, table.rows["label"], groups))
    except ValueError as error:
        raise RequestError(
            f"data.split.group {group!r} must give at least {folds} groups and {folds} images of each class, "
            f"but {table.source} gives {groups.nunique()} groups: {error}"
        ) from None
    for number, (_, inside) in enumerate(pieces[: n_test + n_validation]):
        part.iloc[inside] = "test" if number < n_test else "validation"
    return part


def _groups(table: FaceTable, group: str) -> "pd.Series[str]":
    """The group of each row; a row without one is a group of its own."""
    known = table.rows if group == "identity" and group in table.rows else table.attributes
    if group not in known:
        hint = did_you_mean(group, map(str, table.attributes.columns))
        raise RequestError(
            f"data.split.group must be identity, with identity_CelebA.txt beside {table.source}, or a column of it, "
            f"but it is {group!r}{hint}"
        )
    groups = known[group]
    words = [
        word for word in map(str, groups.dropna().unique()) if word.casefold() in MAYBE_MISSING
    ]
    if words:
        raise RequestError(
            f"data.split.group {group!r} must be known for every image or empty, but {table.source} has {words[0]!r} "
            "there, whose images would form one group; leave the field empty, or give each a name of its own"
        )
    alone = ALONE + table.rows["file"]
    return groups.astype(str).where(groups.notna(), alone)


def _folds(config: SplitConfig) -> tuple[int, int, int]:
    """Folds in total, for test and for validation: the fewest that meet the shares.

    Raises:
        RequestError: no number of folds up to MOST_FOLDS does.
    """
    for folds in range(len(PARTS), MOST_FOLDS + 1):
        n_test, n_validation = round(config.test * folds), round(config.validation * folds)
        near = all(
            count and abs(count / folds - share) <= SHARE_TOLERANCE
            for count, share in ((n_test, config.test), (n_validation, config.validation))
        )
        if near and n_test + n_validation < folds:
            return folds, n_test, n_validation
    raise RequestError(
        "with data.split.group, test and validation must be shares such as 0.1, 0.15 or 0.125 that leave some images "
        f"to train on, but they are {config.test:g} and {config.validation:g}"
    )


def balance(split: pd.DataFrame) -> pd.DataFrame:
    """Images of each class in each part: index part, columns negative, positive, images, positive_share."""
    groups = split.groupby("part")["label"]
    counts = pd.DataFrame({"images": groups.size(), "positive": groups.sum()}).reindex(list(PARTS))
    counts["negative"] = counts["images"] - counts["positive"]
    counts["positive_share"] = counts["positive"] / counts["images"]
    return counts[["negative", "positive", "images", "positive_share"]]


def split_warnings(split: pd.DataFrame) -> list[str]:
    """What the user should know about a split before trusting a validation accuracy on it."""
    counts = balance(split).loc["validation", ["negative", "positive"]]
    return [
        f"only {count:.0f} {name} validation images: validation figures will be coarse"
        for name, count in counts.items()
        if count < FEW_VALIDATION_IMAGES
    ]


def read_split(path: Path, parts: Sequence[Part]) -> pd.DataFrame:
    """The rows of `parts` in a split.parquet; rows of other parts are not loaded.

    Raises:
        RequestError: no such file, or a damaged one.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path, filters=[("part", "in", list(parts))]).to_pandas()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} must be the run's split, but it can't be read: {error}"
        ) from None
    return frame
