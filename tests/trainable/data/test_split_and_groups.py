"""The split: parts as in the first report, stratified, by the official file, and persons kept together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from tests.support.faces import write_faces
from tests.support.layouts import as_official, opened
from trainable.config import SplitConfig
from trainable.data import FaceTable, balance, make_split, split_warnings
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


def table_of(labels: np.ndarray) -> FaceTable:
    """A table without images."""
    rows = pd.DataFrame(
        {"file": [f"{n:06d}.jpg" for n in range(1, len(labels) + 1)], "label": labels}
    )
    return FaceTable(Path("images"), Path("t.csv"), "Smiling", ("-1", "1"), rows, rows[["label"]])


def thirty_thousand() -> FaceTable:
    """As many rows and smiles as CelebA30k has."""
    labels = np.random.default_rng(0).permutation(np.arange(30_000) < 14_259).astype(int)
    return table_of(labels)


@pytest.mark.parametrize("seed", [42, 7])
def test_thirty_thousand_rows_are_parted_as_in_the_first_report(seed: int) -> None:
    table = thirty_thousand()
    rest, test = train_test_split(
        table.rows, test_size=0.1, stratify=table.rows["label"], random_state=seed
    )
    train, validation = train_test_split(
        rest, test_size=1 / 9, stratify=rest["label"], random_state=seed
    )
    split = make_split(table, SplitConfig(seed=seed))
    for part, of_the_report, size in (
        ("train", train, 24_000),
        ("validation", validation, 3_000),
        ("test", test, 3_000),
    ):
        files = split.loc[split["part"] == part, "file"]
        assert len(files) == size
        assert set(files) == set(of_the_report["file"])


def test_the_parts_are_disjoint_and_complete_and_keep_the_tables_order() -> None:
    table = thirty_thousand()
    split = make_split(table, SplitConfig())
    assert split["file"].tolist() == table.rows["file"].tolist()
    assert split["label"].tolist() == table.rows["label"].tolist()
    assert set(split["part"]) == {"train", "validation", "test"}


def test_each_part_has_the_same_share_of_smiles() -> None:
    counted = balance(make_split(thirty_thousand(), SplitConfig()))
    assert counted["positive_share"].to_numpy() == pytest.approx(14_259 / 30_000, abs=1 / 3_000)
    assert counted["images"].tolist() == [24_000, 3_000, 3_000]
    assert (counted["negative"] + counted["positive"]).tolist() == [24_000, 3_000, 3_000]


def test_the_same_seed_gives_the_same_files_and_another_seed_others() -> None:
    table = thirty_thousand()
    one, again, other = (make_split(table, SplitConfig(seed=seed)) for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one["part"].equals(other["part"])


@pytest.mark.parametrize("count", [2, 5, 11, 12, 14])
def test_too_few_images_for_three_parts_are_refused(count: int, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        make_split(table_of(np.arange(count) % 2), SplitConfig())
    assert "data.split" in refused(caught)


@pytest.mark.parametrize("positives", [1, 2, 3])
def test_a_class_too_small_for_each_part_is_refused(positives: int, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        make_split(table_of((np.arange(40) < positives).astype(int)), SplitConfig())
    assert "Smiling" in refused(caught)
    assert "both classes" in refused(caught)


@pytest.mark.parametrize("shares", [(0.6, 0.5), (0.5, 0.5), (0.001, 0.1), (0.1, 0.001)])
def test_shares_that_leave_a_part_empty_are_refused(
    shares: tuple[float, float], refused: Text
) -> None:
    with pytest.raises(RequestError) as caught:
        make_split(table_of(np.arange(100) % 2), SplitConfig(validation=shares[0], test=shares[1]))
    assert "data.split" in refused(caught)


def test_few_validation_images_of_a_class_are_warned_about() -> None:
    few = make_split(table_of((np.arange(200) % 4 == 0).astype(int)), SplitConfig())
    assert list(balance(few).loc["validation", ["negative", "positive"]]) == [15, 5]
    (warning,) = split_warnings(few)
    assert "5 positive validation images" in warning
    enough = make_split(table_of(np.arange(200) % 2), SplitConfig())
    assert split_warnings(enough) == []


def test_the_official_split_needs_its_file_and_every_image_in_it(
    tmp_path: Path, refused: Text
) -> None:
    as_official(tmp_path)
    partition = tmp_path / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000009.jpg 0\n", ""))
    with pytest.raises(RequestError) as caught:
        make_split(opened(tmp_path), SplitConfig(official=True))
    assert "000009.jpg" in refused(caught)
    partition.write_text("".join(f"{n:06d}.jpg {int(n > 18)}\n" for n in range(1, 21)))
    with pytest.raises(RequestError) as caught:
        make_split(opened(tmp_path), SplitConfig(official=True))
    assert "test has no image" in refused(caught)
    partition.unlink()
    with pytest.raises(RequestError) as caught:
        make_split(opened(tmp_path), SplitConfig(official=True))
    assert "list_eval_partition" in refused(caught)


# ---------------------------------------------------------------- persons kept together


def people(root: Path, count: int, each: int) -> FaceTable:
    """`count` images, `each` in a row of one person."""
    faces = write_faces(root, count)
    lines = (f"{file} {number // each}\n" for number, file in enumerate(faces.files))
    (root / "identity_CelebA.txt").write_text("".join(lines))
    return opened(faces.images)


def test_a_split_by_identity_keeps_persons_together_with_both_classes_and_the_shares(
    tmp_path: Path,
) -> None:
    table = people(tmp_path, 400, 4)
    split = make_split(table, SplitConfig(group="identity"))
    assert split.groupby("identity")["part"].nunique().max() == 1
    counts = split["part"].value_counts().to_dict()
    assert counts == {"train": 320, "validation": 40, "test": 40}
    assert split.groupby("part")["label"].mean().tolist() == [0.5, 0.5, 0.5]
    again = make_split(table, SplitConfig(group="identity"))
    assert split.equals(again)
    assert not split.equals(make_split(table, SplitConfig(group="identity", seed=1)))
    shares = make_split(table, SplitConfig(group="identity", test=0.125, validation=0.25))
    assert shares["part"].value_counts().to_dict() == {"train": 248, "validation": 100, "test": 52}


def test_a_split_goes_by_any_column_and_a_row_without_one_stands_alone(tmp_path: Path) -> None:
    faces = write_faces(tmp_path, 200)
    frame = pd.read_csv(faces.table)
    frame["session"] = [None if number < 20 else f"s{number // 5}" for number in range(200)]
    frame.to_csv(faces.table, index=False)
    split = make_split(opened(faces.images), SplitConfig(group="session"))
    groups = frame["session"].to_numpy()
    assert split.groupby(groups)["part"].nunique().max() == 1
    assert split.loc[:19, "part"].nunique() > 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"group": "identty"}, "must be identity, with identity_CelebA.txt beside"),
        ({"group": "Smilng"}, "did you mean Smiling"),
        ({"group": "Smiling"}, "must give at least 10 groups"),
        ({"group": "identity", "test": 0.6, "validation": 0.5}, "leave some images to train on"),
        ({"group": "identity", "test": 0.001}, "must be shares such as 0.1"),
    ],
)
def test_a_group_that_can_not_be_kept_together_is_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        make_split(people(tmp_path, 40, 2), SplitConfig(**changed))


def test_official_parts_and_a_group_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="the official parts are given"):
        SplitConfig(official=True, group="identity")
