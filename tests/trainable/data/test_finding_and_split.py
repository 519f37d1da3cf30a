"""Finding the images and their table in any layout, what is refused, the zip, the split, the opening of images."""

import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split

from tests.conftest import Faces, sha256_of, write_faces, write_images, write_zip
from trainable.config import DataConfig, SplitConfig
from trainable.data import (
    FaceTable,
    LabelledImages,
    balance,
    load_pixels,
    make_split,
    open_table,
    open_test_data,
    open_training_data,
    read_split,
    split_warnings,
    unpacked,
)
from trainable.data.views import ORIGINAL
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


def opened(images: Path, target: str = "Smiling", **settings: object) -> FaceTable:
    """The table of `images`, which nobody names."""
    return open_table(DataConfig(images=images, target=target, **settings))


def as_said(faces: Faces, table: FaceTable) -> bool:
    """Does `table` hold the files and labels of `faces`, and are its images there?"""
    return (
        tuple(table.rows["file"]) == faces.files
        and [2 * label - 1 for label in table.rows["label"]] == list(faces.smiling)
        and all((table.images / file).is_file() for file in faces.files)
    )


# ---------------------------------------------------------------- layouts


@pytest.fixture
def own(tmp_path: Path) -> Faces:
    """Twenty images in `faces` beside `faces.csv`, to be changed."""
    return write_faces(tmp_path, 20)


def as_celeba30k(tmp_path: Path, inside: str) -> tuple[Faces, Path]:
    faces = write_faces(tmp_path / "made", 20)
    archive = write_zip(faces.images, tmp_path / "CelebA30k.zip", inside)
    shutil.copy(faces.table, tmp_path / "CelebA30k.csv")
    return faces, archive


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


def as_official(root: Path) -> Faces:
    faces = write_faces(root, 20, "img_align_celeba", "made.csv")
    faces.table.unlink()
    lines = [
        f"{file} {smiling:2d} {male:2d}"
        for file, smiling, male in zip(faces.files, faces.smiling, faces.male, strict=True)
    ]
    (root / "list_attr_celeba.txt").write_text("\n".join(["20", "Smiling Male ", *lines]) + "\n")
    parts = [0] * 14 + [1] * 3 + [2] * 3
    pairs = zip(faces.files, parts, strict=True)
    (root / "list_eval_partition.txt").write_text("".join(f"{f} {part}\n" for f, part in pairs))
    people = "".join(f"{file} {2880 + number // 3}\n" for number, file in enumerate(faces.files))
    (root / "identity_CelebA.txt").write_text(people)
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
    own: Faces, values: tuple[object, object], classes: tuple[str, str]
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
    lines = [f"{n:07d}.jpg,{n % 2},{n % 2},{n % 2}" for n in range(300_000)]
    lines[-1] = "0299999.jpg,?,1,1"
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
    frame.loc[8, "filename"] = frame.loc[2, "filename"]
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


# ---------------------------------------------------------------- the zip


def test_a_zip_is_extracted_once(tmp_path: Path) -> None:
    faces, archive = as_celeba30k(tmp_path, "img")
    folder = unpacked(archive)
    image = folder / "img" / faces.files[0]
    assert image.read_bytes() == (faces.images / faces.files[0]).read_bytes()
    image.write_bytes(b"would be replaced by a second extraction")
    assert unpacked(archive) == folder
    assert image.read_bytes() == b"would be replaced by a second extraction"


def test_another_zip_of_the_same_name_is_extracted_anew(tmp_path: Path) -> None:
    faces, archive = as_celeba30k(tmp_path, "")
    unpacked(archive)
    other = write_faces(tmp_path / "other", 4)
    write_zip(other.images, archive)
    assert sorted(p.name for p in unpacked(archive).glob("*.jpg")) == list(other.files)
    assert len(faces.files) > len(other.files)


def test_an_extraction_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    faces, archive = as_celeba30k(tmp_path, "")
    folder = unpacked(archive)
    partial = folder.rename(tmp_path / f".{folder.name}.partial")
    (partial / ".complete").unlink()
    (partial / faces.files[3]).unlink()
    assert as_said(faces, opened(archive))
    assert not partial.exists()


def test_many_who_want_the_same_zip_extract_it_once(tmp_path: Path) -> None:
    faces, archive = as_celeba30k(tmp_path, "")
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(unpacked, [archive] * 6))
    assert len(folders) == 1
    folder = folders.pop()
    assert sorted(path.name for path in folder.glob("*.jpg")) == list(faces.files)
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    "outside",
    [
        "../evil.jpg",
        "a/../../evil.jpg",
        "/evil.jpg",
        "..\\evil.jpg",
        "C:\\evil.jpg",
        "//evil.jpg",
        "\\evil.jpg",
    ],
)
def test_a_zip_with_a_member_that_points_outside_is_refused_whole(
    tmp_path: Path, refused: Text, outside: str
) -> None:
    archive = tmp_path / "inner" / "photos.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened_zip:
        opened_zip.writestr("000001.jpg", b"harmless")
        opened_zip.writestr(zipfile.ZipInfo(outside), b"evil")
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert repr(outside) in refused(caught)
    assert not list(tmp_path.rglob("*.jpg"))
    assert not Path("/evil.jpg").exists()


def test_a_zip_with_a_link_is_refused(tmp_path: Path, refused: Text) -> None:
    archive = tmp_path / "photos.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as opened_zip:
        opened_zip.writestr(link, "/etc")
        opened_zip.writestr("link/passwd", b"root")
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert "'link'" in refused(caught)
    assert not (tmp_path / "photos.zip.extracted").exists()


def test_an_encrypted_zip_is_refused(tmp_path: Path, refused: Text) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as opened_zip:
        opened_zip.writestr("000001.jpg", b"secret")
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert "encrypted" in refused(caught)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_refused_and_leaves_nothing_that_looks_whole(
    tmp_path: Path, refused: Text, compression: int
) -> None:
    archive = tmp_path / "photos.zip"
    noise = np.random.default_rng(0).bytes(5000)
    with zipfile.ZipFile(archive, "w", compression) as opened_zip:
        opened_zip.writestr("000001.jpg", noise + noise)
    content = bytearray(archive.read_bytes())
    for place in range(200, 4000, 10):
        content[place] ^= 0xFF
    archive.write_bytes(content)
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            unpacked(archive)
        assert str(archive) in refused(caught)
        assert "damaged" in refused(caught)
        assert not (tmp_path / "photos.zip.extracted").exists()


def test_half_a_zip_is_refused(tmp_path: Path, refused: Text) -> None:
    _, archive = as_celeba30k(tmp_path, "")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert str(archive) in refused(caught)


def test_where_a_zip_cannot_be_extracted_the_way_out_is_told(tmp_path: Path, refused: Text) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as opened_zip:
        opened_zip.writestr("n" * 300 + ".jpg", b"no file system takes this name")
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert str(archive) in refused(caught)
    assert "extract it yourself" in refused(caught)


# ---------------------------------------------------------------- the split


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
    assert balance(few).loc["validation", ["negative", "positive"]].tolist() == [15, 5]
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


# ---------------------------------------------------------------- the images


def test_training_sees_two_parts_and_the_final_test_the_third(
    faces: Faces, split_file: Path
) -> None:
    split = pd.read_parquet(split_file)
    data = open_training_data(split_file, faces.images, 32)
    test = open_test_data(split_file, faces.images, 32)
    for part, images in (
        ("train", data.training),
        ("validation", data.validation),
        ("test", test),
    ):
        rows = split[split["part"] == part]
        assert list(images.files) == rows["file"].tolist()
        assert images.labels.tolist() == rows["label"].tolist()
    assert sorted(data.training.files + data.validation.files + test.files) == list(faces.files)


def test_rows_of_the_test_part_stay_on_the_disk(split_file: Path) -> None:
    assert set(read_split(split_file, ("train", "validation"))["part"]) == {"train", "validation"}


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and then nothing"])
def test_a_split_that_cannot_be_read_is_named(
    tmp_path: Path, refused: Text, content: bytes | None
) -> None:
    path = tmp_path / "split.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_split(path, ("train",))
    assert str(path) in refused(caught)


def gradient(mode: str) -> Image.Image:
    """Red from left to right, green from top to bottom, blue half."""
    side = np.linspace(0, 255, 64)
    red, green = np.meshgrid(side, side)
    pixels = np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "off_by"),
    [
        ("RGB", "png", 0),
        ("RGB", "bmp", 0),
        ("RGB", "webp", 6),
        ("RGB", "jpg", 6),
        ("RGBA", "png", 0),
        ("CMYK", "jpg", 6),
        ("P", "png", 20),
        ("P", "gif", 20),
    ],
)
def test_a_picture_of_any_mode_is_read_as_its_colours(
    tmp_path: Path, mode: str, suffix: str, off_by: int
) -> None:
    path = tmp_path / f"picture.{suffix}"
    gradient(mode).save(path, quality=95) if suffix in ("jpg", "webp") else gradient(mode).save(
        path
    )
    with Image.open(path) as image:
        assert image.mode == mode
    pixels = load_pixels(path, 64)
    expected = torch.from_numpy(np.array(gradient("RGB"))).permute(2, 0, 1)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().mean() <= off_by


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("1", "png")]
)
def test_a_grey_picture_has_three_equal_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    gradient("L").convert(mode).save(path)
    pixels = load_pixels(path, 64)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    grey = torch.from_numpy(np.array(gradient("L"))).float()
    assert (pixels[0].float().mean() - grey.mean()).abs() < 3


def test_sixteen_bits_of_grey_are_scaled_not_cut_off(tmp_path: Path) -> None:
    grey = np.array(gradient("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    pixels = load_pixels(tmp_path / "deep.png", 64)
    assert torch.equal(pixels, torch.from_numpy(grey).expand(3, 64, 64))


def test_a_picture_that_says_it_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    lying = gradient("RGB").transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "lying.png", exif=exif)
    gradient("RGB").save(tmp_path / "upright.png")
    assert torch.equal(
        load_pixels(tmp_path / "lying.png", 48), load_pixels(tmp_path / "upright.png", 48)
    )


def test_a_picture_that_is_not_square_is_resized_whole(tmp_path: Path) -> None:
    gradient("RGB").resize((40, 90)).save(tmp_path / "tall.png")
    pixels = load_pixels(tmp_path / "tall.png", 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels[0, :, 0].max() < 20
    assert pixels[0, :, -1].min() > 235
    assert pixels[1, -1].min() > 235


def test_a_damaged_image_stops_the_batches_with_its_error(tmp_path: Path) -> None:
    faces = write_faces(tmp_path, 6)
    (faces.images / faces.files[4]).write_bytes(b"no picture")
    digests = sha256_of(faces)
    images = LabelledImages(faces.images, faces.files, torch.zeros(6), 32, digests)
    with pytest.raises(OSError, match=faces.files[4]):
        list(images.batches(range(6), 2, lambda file: ORIGINAL, 2))


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
    with pytest.raises(ValueError, match="official parts are given"):
        SplitConfig(official=True, group="identity")
