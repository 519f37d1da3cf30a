"""The split: which parts a request gives, held against counts made by hand and a search of all numbers of folds."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainable.config import SplitConfig
from trainable.data import FaceTable, add_digests, balance, make_split, read_split, split_warnings
from trainable.data.split import split_said
from trainable.errors import RequestError

OFFICIAL = {"partition": "list_eval_partition.txt: 12 of 12 rows"}
TWELVE = [n % 2 for n in range(12)]
"""Labels of both classes by turns."""


def table_of(
    labels: Sequence[int] | np.ndarray,
    joined: dict[str, str] | None = None,
    table: str | None = "t.csv",
    partition: Sequence[Any] | None = None,
    identity: Sequence[Any] | None = None,
    **columns: Sequence[Any],
) -> FaceTable:
    """A table without images: what was joined to its rows, and its own columns."""
    rows = pd.DataFrame({"file": [f"{n}.jpg" for n in range(len(labels))], "label": labels})
    for name, values in (("partition", partition), ("identity", identity)):
        if values is not None:
            rows[name] = values
    path = Path(table) if table else None
    attributes = pd.DataFrame(columns, index=rows.index)
    return FaceTable(
        Path("faces"), path, "Smiling", ("no", "yes"), rows, attributes, joined=joined or {}
    )


def refusal(table: FaceTable, config: SplitConfig) -> str:
    with pytest.raises(RequestError) as caught:
        make_split(table, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(split: pd.DataFrame) -> tuple[int, ...]:
    """Images to train on, to validate on, to test on."""
    found = split["part"].value_counts()
    return tuple(int(found[part]) for part in ("train", "validation", "test"))


# ---------------------------------------------------------------- drawn


@settings(max_examples=20)
@given(st.integers(40, 300), st.floats(0.15, 0.35), st.floats(0.15, 0.35), st.floats(0.3, 0.7))
def test_drawn_parts_have_their_shares_of_the_images_and_each_the_same_share_of_a_class(
    count: int, validation: float, test: float, positive: float
) -> None:
    labels = (np.arange(count) < count * positive).astype(int)
    split = make_split(table_of(labels), SplitConfig(validation=validation, test=test))
    expected = {"test": count * test, "validation": count * validation}
    for part, size in (expected | {"train": count - sum(expected.values())}).items():
        found = split.loc[split["part"] == part, "label"]
        assert abs(len(found) - size) <= (1 if part == "train" else 0.5)
        assert abs(found.sum() - len(found) * labels.mean()) < 2
    assert "partition" not in split


@pytest.mark.parametrize(
    ("count", "validation", "test", "sizes"),
    [(20, 0.1, 0.1, (16, 2, 2)), (10, 0.4, 0.4, (2, 4, 4)), (20, 0.1, 0.3, (12, 2, 6))],
)
def test_two_images_a_part_are_enough(
    count: int, validation: float, test: float, sizes: tuple[int, ...]
) -> None:
    table = table_of([n % 2 for n in range(count)])
    assert counts(make_split(table, SplitConfig(validation=validation, test=test))) == sizes


@pytest.mark.parametrize(
    ("count", "validation", "test", "sizes"),
    [(20, 0.1, 0.05, "17 / 2 / 1"), (20, 0.05, 0.1, "17 / 1 / 2"), (10, 0.5, 0.4, "1 / 5 / 4")],
)
def test_one_image_a_part_is_refused(
    count: int, validation: float, test: float, sizes: str
) -> None:
    table = table_of([n % 2 for n in range(count)])
    said = refusal(table, SplitConfig(validation=validation, test=test))
    assert f"but {count} images give {sizes}; add images" in said


def test_folders_that_say_parts_are_not_drawn_over_without_a_word() -> None:
    joined = {"partition": "folders train and test: 12 images"}
    parts = ["train", "test"] * 6
    folders = table_of(TWELVE, joined, table=None, partition=parts)
    said = refusal(folders, SplitConfig())
    assert said.startswith("folders train and test split the images, so data.split must say")
    assert "data.split.seed=42 draws others" in said
    asked = {"validation": 0.25, "test": 0.25}
    for table, config in (
        (folders, SplitConfig(**asked)),
        (table_of(TWELVE, joined, partition=parts), SplitConfig(**asked)),
        (table_of(TWELVE * 3, table=None), SplitConfig()),
        (table_of(TWELVE * 3, joined, partition=parts * 3), SplitConfig()),
    ):
        split = make_split(table, config)
        assert "partition" not in split and counts(split)[1:] in ((3, 3), (4, 4))


# ---------------------------------------------------------------- given


def parts_by(letters: str) -> list[str | None]:
    words = {"t": "train", "v": "validation", "e": "test"}
    return [words.get(letter) for letter in letters]


def test_official_parts_are_taken_as_they_are() -> None:
    parts = parts_by("ttvveettvvee")
    table = table_of(TWELVE, OFFICIAL, partition=parts)
    assert make_split(table, SplitConfig(official=True))["part"].tolist() == parts


def test_one_image_of_each_class_is_enough_for_a_part_and_none_is_not() -> None:
    letters = "tttttt" + "vv" + "eeee"
    given_parts = table_of(TWELVE, OFFICIAL, partition=parts_by(letters))
    assert counts(make_split(given_parts, SplitConfig(official=True))) == (6, 2, 4)
    for label, name in ((0, "no"), (1, "yes")):
        labels = TWELVE.copy()
        labels[6 + label] = 1 - label
        said = refusal(
            table_of(labels, OFFICIAL, partition=parts_by(letters)), SplitConfig(official=True)
        )
        assert f"validation has no image with {name} (5 of 12 in total)" in said


@pytest.mark.parametrize("official", [True, False])
def test_validation_images_are_taken_from_training_images_where_that_was_asked_for(
    official: bool,
) -> None:
    parts = parts_by("t" * 16 + "e" * 8)
    labels = TWELVE * 2
    table = table_of(labels, OFFICIAL, partition=parts, split=parts)
    asked = SplitConfig(official=True) if official else SplitConfig(column="split")
    source = "list_eval_partition.txt" if official else "column 'split' of t.csv"
    assert f"needs validation images, but {source} gives none" in refusal(table, asked)
    with_share = SplitConfig(**asked.model_dump(exclude_unset=True), validation=0.25)
    split = make_split(table, with_share)
    assert counts(split) == (12, 4, 8) and set(split["part"][16:]) == {"test"}
    given_too = table_of(labels, OFFICIAL, partition=parts_by("t" * 14 + "vv" + "e" * 8))
    if official:
        assert counts(make_split(given_too, with_share)) == (14, 2, 8), "those given are enough"


def test_images_that_the_partition_file_lacks_are_counted_and_named() -> None:
    table = table_of(TWELVE, OFFICIAL, partition=parts_by("tt-veettv-ee"))
    said = refusal(table, SplitConfig(official=True))
    assert "but it lacks 2 of 12: 2.jpg, 9.jpg;" in said
    assert "needs list_eval_partition" in refusal(table_of(TWELVE), SplitConfig(official=True))


def test_a_column_that_does_not_say_a_part_everywhere_is_refused_with_the_first_such_image() -> (
    None
):
    words = ["train", "val", "test"] * 4
    for word, told in (("maybe", "'maybe'"), (None, "nothing")):
        wrong = [*words[:4], word, *words[5:8], "other", *words[9:]]
        said = refusal(table_of(TWELVE, split=wrong), SplitConfig(column="split"))
        assert f"but 2 say something else: 4.jpg has {told}" in said
    said = refusal(table_of(TWELVE, split=words), SplitConfig(column="splt"))
    assert "column of t.csv, but it has no column 'splt' (did you mean split?)" in said


# ---------------------------------------------------------------- groups


def fewest_folds(test: float, validation: float) -> tuple[int, int, int] | None:
    """By trying all: the fewest folds, and how many of them test and validate, within half a percent of the shares."""
    return next(
        (
            (folds, for_test, for_validation)
            for folds in range(1, 41)
            for for_test in range(1, folds)
            for for_validation in range(1, folds - for_test)
            if abs(for_test / folds - test) <= 0.005
            and abs(for_validation / folds - validation) <= 0.005
        ),
        None,
    )


SHARES = st.sampled_from([0.004, 0.0195, 0.0201, 0.05, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 0.6])


@settings(max_examples=20)
@given(SHARES | st.floats(0.01, 0.6), SHARES | st.floats(0.01, 0.6))
def test_whole_groups_come_in_the_fewest_folds_that_meet_the_shares(
    test: float, validation: float
) -> None:
    folds_by_groups(test, validation)


@pytest.mark.parametrize(
    "shares",
    [
        (0.5, 0.5),
        (0.6, 0.5),
        (0.004, 0.1),
        (0.1, 0.004),
        (0.0201, 0.1),
        (0.1, 0.0201),
        (0.0195, 0.1),
        (0.1, 0.3),
        (0.3, 0.1),
        (1 / 3, 1 / 3),
    ],
)
def test_such_shares_too(shares: tuple[float, float]) -> None:
    folds_by_groups(*shares)


def folds_by_groups(test: float, validation: float) -> None:
    """Of as many equal groups as folds are needed each is a fold: their numbers show how many were taken."""
    config = SplitConfig(group="who", test=test, validation=validation)
    expected = fewest_folds(test, validation)
    folds = expected[0] if expected else 20
    groups = [f"g{n // 2}" for n in range(2 * folds)]
    table = table_of([n % 2 for n in range(2 * folds)], who=groups)
    if expected is None:
        assert "must be shares such as 0.1" in refusal(table, config)
        return
    split = make_split(table, config)
    for_test, for_validation = expected[1:]
    left = folds - for_test - for_validation
    assert counts(split) == (2 * left, 2 * for_validation, 2 * for_test)
    assert split.groupby(groups)["part"].nunique().max() == 1


def test_one_group_fewer_than_folds_is_refused() -> None:
    table = table_of([n % 2 for n in range(18)], who=[f"g{n // 2}" for n in range(18)])
    said = refusal(table, SplitConfig(group="who"))
    assert "at least 10 groups and 10 images of each class, but t.csv gives 9 groups" in said


def test_a_group_is_the_identity_that_was_joined_or_a_column_of_the_table() -> None:
    """A column named identity counts where none was joined; the file's name and label are no columns for it."""
    labels, people = TWELVE * 10, [n // 4 for n in range(120)]
    config = SplitConfig(group="identity")
    joined = make_split(table_of(labels, identity=people), config)
    own = table_of(labels, who=people)
    own = replace(own, attributes=own.attributes.rename(columns={"who": "identity"}))
    assert make_split(own, config)["part"].tolist() == joined["part"].tolist()
    said = refusal(table_of(labels, who=people), config)
    assert "with identity_CelebA.txt beside t.csv, or a column of it, but it is 'identity'" in said
    with_people = table_of(labels, identity=people, who=[n // 2 for n in range(120)])
    by_two = make_split(with_people, SplitConfig(group="who"))
    assert by_two.groupby(people)["part"].nunique().max() > 1, "by the column, not by identity"
    assert "(did you mean who?)" in refusal(with_people, SplitConfig(group="whom"))
    assert "must be identity" in refusal(with_people, SplitConfig(group="file"))


def test_images_without_a_group_are_each_a_group_of_its_own() -> None:
    labels = TWELVE * 10
    who = [None if n < 60 else f"g{n // 4}" for n in range(120)]
    split = make_split(table_of(labels, who=who), SplitConfig(group="who"))
    assert set(split["part"][:60]) == {"train", "validation", "test"}
    assert split[60:].groupby(who[60:])["part"].nunique().max() == 1
    for word in ("NA", "none"):
        said = refusal(table_of(labels, who=[word, *who[1:]]), SplitConfig(group="who"))
        assert f"has {word!r} there" in said


# ---------------------------------------------------------------- what is said of a split


def said_of(table: FaceTable, **asked: object) -> str:
    config = SplitConfig(**asked)
    return split_said(table, config, make_split(table, config))


def test_a_split_is_said_with_its_counts_and_where_it_comes_from() -> None:
    parts = parts_by("ttttttvveeee")
    table = table_of(TWELVE, OFFICIAL, partition=parts, split=parts)
    assert said_of(table, official=True) == (
        "6 train / 2 validation / 4 test; as given by list_eval_partition.txt, 12 of 12 rows"
    )
    assert said_of(table, column="split") == (
        "6 train / 2 validation / 4 test; as given by column 'split' of t.csv"
    )
    assert said_of(table_of(TWELVE * 200), seed=7) == (
        "1,920 train / 240 validation / 240 test; drawn with seed 7"
    )


def test_a_split_by_groups_is_said_with_their_number_and_who_has_none() -> None:
    labels, people = TWELVE * 10, [n // 4 for n in range(120)]
    joined = {"identity": "identity_CelebA.txt: 120 of 120 rows"}
    said = said_of(table_of(labels, joined, identity=people), group="identity")
    assert said.endswith(
        "; drawn with seed 42, 30 groups by identity kept whole (identity_CelebA.txt: 120 of 120 rows)"
    )
    some = [None if n < 8 else f"g{n // 4}" for n in range(120)]
    said = said_of(table_of(labels, joined, identity=people, who=some), group="who")
    assert said.endswith(", 36 groups by who kept whole, of which 8 are images without one"), (
        "28 groups of four, and eight alone"
    )
    one = [None if n < 1 else f"g{n // 4}" for n in range(120)]
    assert "of which 1 are images" in said_of(table_of(labels, who=one), group="who")


def test_fewer_than_ten_validation_images_of_a_class_are_warned_of() -> None:
    def warned(negatives: int, positives: int) -> list[str]:
        labels = [0, 1] * 2 + [0] * negatives + [1] * positives
        parts = parts_by("teet" + "v" * (negatives + positives))
        labels[:4] = 0, 1, 0, 1
        table = table_of(labels, OFFICIAL, partition=parts)
        return split_warnings(make_split(table, SplitConfig(official=True)))

    assert warned(10, 10) == []
    coarse = "validation images: validation figures will be coarse"
    assert warned(9, 11) == [f"only 9 negative {coarse}"]
    assert warned(1, 8) == [f"only 1 negative {coarse}", f"only 8 positive {coarse}"]


def test_the_balance_counts_each_class_of_each_part() -> None:
    frame = pd.DataFrame({"part": ["train"] * 4 + ["test"] * 2 + ["validation"] * 5})
    frame["label"] = [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1]
    found = balance(frame)
    assert found.index.tolist() == ["train", "validation", "test"]
    assert found[["negative", "positive", "images"]].to_numpy().tolist() == [
        [3, 1, 4],
        [2, 3, 5],
        [0, 2, 2],
    ]
    assert found["positive_share"].tolist() == [0.25, 0.6, 1.0]


def test_a_split_on_disk_gives_the_parts_asked_for_with_the_digest_of_each_file(
    tmp_path: Path,
) -> None:
    files = {"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"three"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    split = pd.DataFrame({"file": list(files), "part": ["train", "test", "validation"]})
    add_digests(split, tmp_path).to_parquet(tmp_path / "split.parquet")
    read = read_split(tmp_path / "split.parquet", ("train", "validation"))
    assert read["file"].tolist() == ["a.jpg", "c.jpg"]
    assert read["sha256"].tolist() == [
        hashlib.sha256(files[name]).hexdigest() for name in ("a.jpg", "c.jpg")
    ]
