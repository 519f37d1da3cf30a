"""Which images train, which validate, which are left for the one test."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import pandas as pd
import pyarrow.parquet as pq

from trainable.config import RequestError, SplitConfig, did_you_mean
from trainable.data.table import FaceTable

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
MOST_FOLDS: Final = 40
SHARE_TOLERANCE: Final = 0.005
FEW_VALIDATION_IMAGES: Final = 10  # of a class: below this a validation accuracy says little


def make_split(table: FaceTable, config: SplitConfig) -> pd.DataFrame:
    """`table.rows` with a column `part` (train | validation | test), in the table's order.

    Two stratified steps of scikit-learn's `train_test_split` with one seed: first the test images, then the
    validation images from the rest; with `group` folds of its `StratifiedGroupKFold`; or the parts of the official
    partition file.

    Raises:
        RequestError: a part would lack a class, or the partition file is missing or incomplete.
    """
    rows = table.rows
    if config.official:
        part = _official_parts(table)
    elif config.group is not None:
        part = _grouped_parts(table, config, config.group)
    else:
        n = len(rows)
        n_test, n_validation = round(n * config.test), round(n * config.validation)
        if min(n_test, n_validation, n - n_test - n_validation) < 2:
            raise RequestError(
                f"a split needs at least two images a part, but {n} images give "
                f"{n - n_test - n_validation} / {n_validation} / {n_test}; add images or change data.split"
            )
        from sklearn.model_selection import train_test_split  # a second to import; trials need none

        part = pd.Series("train", index=rows.index)
        try:
            rest, test = train_test_split(
                rows.index, test_size=n_test, random_state=config.seed, stratify=rows["label"]
            )
            _, validation = train_test_split(
                rest,
                test_size=n_validation,
                random_state=config.seed,
                stratify=rows["label"].loc[rest],
            )
        except ValueError as error:
            raise RequestError(
                f"{table.target} in {table.table} can't be split with both classes in each part: {error}"
            ) from None
        part[test], part[validation] = "test", "validation"
    split = rows.drop(columns="partition", errors="ignore").assign(part=part)
    for name in PARTS:
        found = split.loc[split["part"] == name, "label"].value_counts()
        for label in (0, 1):
            if found.get(label, 0) == 0:
                raise RequestError(
                    f"each part must hold both classes of {table.target}, but {name} has no image with "
                    f"{table.classes[label]} ({int((rows['label'] == label).sum())} of {len(rows):,} in all); "
                    "add images or change data.split"
                )
    return split


def add_digests(split: pd.DataFrame, images: Path) -> pd.DataFrame:
    """`split` with a column `sha256`: the digest of each file in the folder `images`, as it is now."""
    contents = ((images / file).read_bytes() for file in split["file"])
    return split.assign(sha256=[hashlib.sha256(content).hexdigest() for content in contents])


def _official_parts(table: FaceTable) -> "pd.Series[str]":
    if "partition" not in table.rows:
        raise RequestError(
            f"data.split: official needs list_eval_partition.csv or .txt beside {table.table}, but there is none"
        )
    part = table.rows["partition"]
    if part.isna().any():
        file = table.rows.loc[part.isna(), "file"].iloc[0]
        raise RequestError(f"the partition file must name every image, but it lacks {file}")
    return part


def _grouped_parts(table: FaceTable, config: SplitConfig, group: str) -> "pd.Series[str]":
    """Folds of whole groups, as many for test and validation as their shares ask for."""
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
            f"but {table.table} gives {groups.nunique()} groups: {error}"
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
            f"data.split.group must be identity, with identity_CelebA.txt beside {table.table}, or a column of it, "
            f"but it is {group!r}{hint}"
        )
    groups = known[group]
    alone = "alone " + table.rows["file"]
    return groups.astype(str).where(groups.notna(), alone)


def _folds(config: SplitConfig) -> tuple[int, int, int]:
    """Folds in all, of the test part, of the validation part: the fewest that meet the shares.

    Raises:
        RequestError: no number of folds up to MOST_FOLDS does.
    """
    for folds in range(2, MOST_FOLDS + 1):
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
    """What a person should know of a split before trusting a validation accuracy on it."""
    counts = balance(split).loc["validation", ["negative", "positive"]]
    return [
        f"only {count:.0f} {name} validation images: validation figures will be coarse"
        for name, count in counts.items()
        if count < FEW_VALIDATION_IMAGES
    ]


def read_split(path: Path, parts: Sequence[Part]) -> pd.DataFrame:
    """The rows of `parts` in a split.parquet; rows of other parts are not brought into memory.

    Raises:
        RequestError: no such file, or a damaged one.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path, filters=[("part", "in", list(parts))]).to_pandas()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} must be the run's split, but reading it says: {error}"
        ) from None
    return frame
