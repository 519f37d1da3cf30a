"""Finding the images and their table in any layout, and what is refused."""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.faces import Faces, write_faces, write_images, write_zip
from tests.support.layouts import as_celeba30k, as_official, as_said, opened
from tests.support.unreadable import UNREADABLE
from trainable.config import SplitConfig
from trainable.data import make_split
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


# ---------------------------------------------------------------- layouts


@pytest.fixture
def own(tmp_path: Path) -> Faces:
    """Twenty images in `faces` beside `faces.csv`, to be changed."""
    return write_faces(tmp_path, 20)


@pytest.mark.parametrize("inside", ["", "CelebA30k", "data/img_align_celeba"])
def test_celeba30k_is_a_zip_beside_its_csv(tmp_path: Path, inside: str) -> None:
    faces, archive = as_celeba30k(tmp_path, inside)
    table = opened(archive)
    assert as_said(faces, table)
    assert table.table == tmp_path / "CelebA30k.csv"
    assert table.classes == ("-1", "1")
    assert list(table.attributes.columns) == ["Smiling", "Male"]


@pytest.mark.parametrize("inside", ["", "CelebA30k"])
def test_the_table_may_lie_in_the_zip(tmp_path: Path, inside: str) -> None:
    faces = write_faces(tmp_path / "made", 20)
    archive = write_zip(faces.images, tmp_path / "photos.zip", inside)
    with zipfile.ZipFile(archive, "a") as opened_zip:
        opened_zip.write(faces.table, "labels.csv")
    assert as_said(faces, opened(archive))


@pytest.mark.parametrize("images", ["CelebA30k", "CelebA30k/img", "."])
def test_celeba30k_is_also_a_folder_with_its_csv(tmp_path: Path, images: str) -> None:
    faces = write_faces(tmp_path, 20, images="CelebA30k/img", table="CelebA30k.csv")
    if images == "CelebA30k/img":
        shutil.move(faces.table, tmp_path / "CelebA30k" / "CelebA30k.csv")
    assert as_said(faces, opened(tmp_path / images))


def as_kaggle(root: Path) -> Faces:
    faces = write_faces(root, 20, "img_align_celeba/img_align_celeba", "made.csv")
    frame = pd.read_csv(faces.table).rename(columns={"filename": "image_id"})
    frame.to_csv(root / "list_attr_celeba.csv", index=False)
    faces.table.unlink()
    parts = [0] * 14 + [1] * 3 + [2] * 3
    partition = pd.DataFrame({"image_id": faces.files, "partition": parts})
    partition.to_csv(root / "list_eval_partition.csv", index=False)
    landmarks = partition.rename(columns={"partition": "lefteye_x"})
    landmarks.to_csv(root / "list_landmarks_align_celeba.csv", index=False)
    return faces


@pytest.mark.parametrize("layout", [as_kaggle, as_official])
@pytest.mark.parametrize("images", [".", "img_align_celeba"])
def test_kaggles_and_the_official_layout_are_read_with_their_partition(
    tmp_path: Path, layout: Callable[[Path], Faces], images: str
) -> None:
    faces = layout(tmp_path)
    table = opened(tmp_path / images)
    assert as_said(faces, table)
    assert opened(tmp_path / images, "Male").rows["label"].tolist() == [
        (male + 1) // 2 for male in faces.male
    ]
    split = make_split(table, SplitConfig(official=True))
    assert split["part"].tolist() == ["train"] * 14 + ["validation"] * 3 + ["test"] * 3


def test_kaggles_inner_folder_may_be_given_too(tmp_path: Path) -> None:
    faces = as_kaggle(tmp_path)
    assert as_said(faces, opened(tmp_path / "img_align_celeba" / "img_align_celeba"))


def test_identities_are_kept_where_the_official_file_has_them(tmp_path: Path) -> None:
    as_official(tmp_path)
    table = opened(tmp_path)
    assert table.rows["identity"].tolist() == [2880 + number // 3 for number in range(20)]
    assert "identity" in make_split(table, SplitConfig())


def test_kaggles_download_may_stay_a_zip(tmp_path: Path) -> None:
    faces = as_kaggle(tmp_path / "made")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "made")
    table = opened(Path(archive))
    assert as_said(faces, table)
    assert "partition" in table.rows


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (("no", "yes"), ("no", "yes")),
        ((0, 1), ("0", "1")),
        ((2, 10), ("2", "10")),
        ((False, True), ("False", "True")),
        ((0.5, 1.5), ("0.5", "1.5")),
        (("female", "male"), ("female", "male")),
    ],
    ids=str,
)
def test_any_column_of_two_values_is_a_target(
    own: Faces, values: tuple[Any, Any], classes: tuple[str, str]
) -> None:
    frame = pd.read_csv(own.table)
    frame.insert(0, "age", range(20))
    frame["Wears hat"] = [values[number % 3 == 0] for number in range(20)]
    frame.to_csv(own.table, index=False)
    table = opened(own.images, "Wears hat")
    assert table.classes == classes
    assert table.rows["label"].tolist() == [int(number % 3 == 0) for number in range(20)]
    turned = opened(own.images, "Wears hat", positive=classes[0])
    assert turned.classes == classes[::-1]
    assert turned.rows["label"].tolist() == [int(number % 3 != 0) for number in range(20)]


def test_a_table_from_a_spreadsheet_begins_with_a_byte_order_mark(own: Faces) -> None:
    own.table.write_text("\ufeff" + own.table.read_text())
    table = opened(own.images)
    assert as_said(own, table)
    assert list(table.attributes.columns) == ["Smiling", "Male"]


def test_file_names_may_name_subfolders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_images(tmp_path / "photos" / folder, [-1, 1] * 5)
    files = [f"{folder}/{n:06d}.jpg" for folder in ("a", "b") for n in range(1, 11)]
    pd.DataFrame({"file": files, "Smiling": [-1, 1] * 10}).to_csv(tmp_path / "t.csv", index=False)
    table = opened(tmp_path / "photos")
    assert table.images == tmp_path / "photos"
    assert table.rows["file"].tolist() == files


def test_images_that_the_table_does_not_name_are_left_alone(own: Faces) -> None:
    (own.images / "cover.jpg").write_bytes(b"not in the table, so never opened")
    assert as_said(own, opened(own.images))


# ---------------------------------------------------------------- what is refused


def test_a_table_that_is_not_there_is_named(own: Faces, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        opened(own.images, table=own.table.with_name("list.csv"))
    assert str(own.table.with_name("list.csv")) in refused(caught)


def test_without_a_table_beside_the_images_the_names_looked_for_are_told(
    own: Faces, refused: Text
) -> None:
    own.table.unlink()
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    for told in ("data.table", "list_attr_celeba.csv", "faces.csv", str(own.images)):
        assert told in refused(caught)


def test_images_that_are_not_there_are_named(own: Faces, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        opened(own.images.with_name("photos"))
    assert str(own.images.with_name("photos")) in refused(caught)
    with pytest.raises(RequestError) as caught:
        opened(own.table)
    assert "folder or a zip" in refused(caught)


def test_a_folder_without_the_images_of_the_table_is_named(own: Faces, refused: Text) -> None:
    (own.images.parent / "empty").mkdir()
    with pytest.raises(RequestError) as caught:
        opened(own.images.parent / "empty", table=own.table)
    assert str(own.images.parent / "empty") in refused(caught)
    assert "000001.jpg" in refused(caught)


def test_a_misspelt_target_gets_the_nearest_columns(own: Faces, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        opened(own.images, "Smilling")
    assert "'Smilling'" in refused(caught)
    assert "did you mean Smiling?" in refused(caught)
    assert str(own.table) in refused(caught)


@pytest.mark.parametrize("values", [[1] * 20, [0, 1, 2, 1] * 5, list(range(20))], ids=len)
def test_a_target_of_one_or_three_values_is_refused(
    own: Faces, refused: Text, values: list[int]
) -> None:
    frame = pd.read_csv(own.table)
    frame["Smiling"] = values
    frame.to_csv(own.table, index=False)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert "'Smiling'" in refused(caught)
    assert f"has {len(set(values))}" in refused(caught)


def test_a_stray_text_in_a_long_column_of_numbers_is_told_as_a_third_value(
    own: Faces, refused: Text
) -> None:
    lines = [f"{n:07d}.jpg,{n % 2},{n % 2},{n % 2}" for n in range(150_000)]
    lines[-1] = "0149999.jpg,?,1,1"
    own.table.write_text("\n".join(["file,Smiling,Male,Young", *lines]) + "\n")
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert "'?'" in refused(caught)


def test_a_row_without_a_label_is_named(own: Faces, refused: Text) -> None:
    frame = pd.read_csv(own.table).astype({"Smiling": "float"})
    frame.loc[6, "Smiling"] = np.nan
    frame.to_csv(own.table, index=False)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert "1 of 20 have none, row 7 first" in refused(caught)


def test_a_positive_value_that_the_column_lacks_is_refused(own: Faces, refused: Text) -> None:
    with pytest.raises(RequestError) as caught:
        opened(own.images, positive="yes")
    assert "'yes'" in refused(caught)
    assert "'-1', '1'" in refused(caught)


def test_a_file_named_twice_is_told_with_both_rows(own: Faces, refused: Text) -> None:
    frame = pd.read_csv(own.table)
    frame.loc[8, "filename"] = str(frame.loc[2, "filename"])
    frame.to_csv(own.table, index=False)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert "'000003.jpg' is in rows 3 and 9" in refused(caught)


def test_rows_without_an_image_are_counted_and_the_first_five_named(
    own: Faces, refused: Text
) -> None:
    gone = own.files[4:11]
    for file in gone:
        (own.images / file).unlink()
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert "7 of 20" in refused(caught)
    assert ", ".join(gone[:5]) in refused(caught)
    assert gone[5] not in refused(caught)
    assert "data.missing=drop" in refused(caught)


def test_rows_without_an_image_can_be_dropped(own: Faces) -> None:
    gone = own.files[4:11]
    for file in gone:
        (own.images / file).unlink()
    table = opened(own.images, missing="drop")
    assert table.dropped == gone
    assert table.rows["file"].tolist() == [file for file in own.files if file not in gone]
    assert len(table.attributes) == 13
    assert table.attributes["Male"].tolist() == [
        male for file, male in zip(own.files, own.male, strict=True) if file not in gone
    ]


def test_images_of_a_few_late_rows_of_a_long_table_are_found(own: Faces) -> None:
    for file in own.files:
        (own.images / file).rename(own.images / f"9{file}")
    frame = pd.read_csv(own.table)
    late = frame.assign(filename="9" + frame["filename"])
    pd.concat([frame, late, frame.assign(filename="8" + frame["filename"])]).to_csv(
        own.table, index=False
    )
    table = opened(own.images.parent, table=own.table, missing="drop")
    assert table.images == own.images
    assert table.rows["file"].tolist() == late["filename"].tolist()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "table"),
        (b"file,Smiling\n", "rows"),
        (b"file;Smiling\n000001.jpg;1\n", "Smiling"),
        (b"id,Smiling\nx1,1\nx2,-1\n", "file names"),
        (b"file,Smiling\na.jpg,1\nb.jpg,1,1,1\n", "line 3"),
        ("file,Smiling\nGrün.jpg,1\n".encode("latin-1"), "UTF-8"),
        (b"file,Smiling\n" + b"a.jpg,1\n" * 9999 + b"\xfc.jpg,1\n", "UTF-8"),
        (b"2\n", "table"),
        (b"2\nSmiling Male Young Old\na.jpg 1 1\nb.jpg -1 1\n", "line 2"),
        (b"2\nSmiling\na.jpg 1 1\nb.jpg -1 1\n", "line 2"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_is_no_table_of_images_is_named(
    own: Faces, refused: Text, content: bytes, told: str
) -> None:
    own.table.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert str(own.table) in refused(caught)
    assert told in refused(caught)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list_eval_partition.txt", b""),
        ("list_eval_partition.txt", b"000001.jpg 0 7\n000002.jpg 1 7\n"),
        ("list_eval_partition.txt", b"000001.jpg 0\n000002.jpg 3\n"),
        ("list_eval_partition.txt", b"000001.jpg 0\n000002.jpg\n"),
        ("list_eval_partition.csv", b""),
        ("list_eval_partition.csv", b"image_id,partition\n000001.jpg,train\n"),
        ("list_eval_partition.csv", b"image_id\n000001.jpg\n"),
        ("list_eval_partition.csv", "image_id,partition\nGrün.jpg,1\n".encode("latin-1")),
        ("identity_CelebA.txt", b"000001.jpg Ann\n000002.jpg Bob\n"),
        ("identity_CelebA.txt", b""),
    ],
    ids=str,
)
def test_a_damaged_partition_or_identity_file_is_named(
    own: Faces, refused: Text, name: str, content: bytes
) -> None:
    (own.table.parent / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert name in refused(caught)


@pytest.mark.parametrize("name", ["list_eval_partition.txt", "identity_CelebA.txt"])
def test_a_file_beside_the_table_names_each_image_once(
    own: Faces, refused: Text, name: str
) -> None:
    """However it writes the name."""
    path = own.table.parent / name
    path.write_text("000001.jpg 0\n000002.jpg 1\n./000001.jpg 1\n")
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert refused(caught) == (
        f"{path} must name each file once, but './000001.jpg' is repeated in line 3"
    )


@pytest.mark.parametrize("name", ["faces.csv", "identity_CelebA.txt"])
def test_a_table_or_a_file_beside_it_that_can_not_be_read_is_named_with_the_systems_words(
    own: Faces, refused: Text, name: str
) -> None:
    path = own.table.parent / name
    path.unlink(missing_ok=True)
    path.symlink_to(UNREADABLE)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert refused(caught).startswith(str(path))
    assert refused(caught).endswith("can't be read: Input/output error")


def test_a_folder_of_images_that_can_not_be_read_is_named(
    own: Faces, refused: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's answer is made here: root may read everything."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != own.images)
    with pytest.raises(RequestError) as caught:
        opened(own.images)
    assert refused(caught) == (
        f"data.images must be a folder that can be read, but {own.images} can't"
    )


def test_a_folder_that_goes_while_its_files_are_listed_stops_nothing(
    own: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = own.images / "gone"
    gone.mkdir()
    walk = os.walk

    def walked(root: Path, **how: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(root, **how):
            if found[0] == str(gone):
                gone.rmdir()
            yield found

    monkeypatch.setattr(os, "walk", walked)
    assert as_said(own, opened(own.images))
    assert not gone.exists()
