"""Images in a zip: extracted once and whole, whoever asks and whatever is cut short; a bad one is refused."""

import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.bad_zips import UNOPENED, UNREAD
from tests.support.faces import write_faces, write_zip
from tests.support.layouts import as_celeba30k, as_said, opened
from trainable.data import unpacked
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


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


@pytest.mark.parametrize("how", UNOPENED | UNREAD)
def test_whatever_is_wrong_with_a_zip_is_one_line(tmp_path: Path, refused: Text, how: str) -> None:
    damage, told = (UNOPENED | UNREAD)[how]
    damage(archive := tmp_path / "photos.zip")
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert str(archive) in refused(caught) and told in refused(caught)
    assert not (tmp_path / "photos.zip.extracted").exists()


def test_a_zip_that_holds_a_file_twice_is_refused_however_its_folder_is_written(
    tmp_path: Path, refused: Text
) -> None:
    """The second would replace the first, and which of them has the label can't be known."""
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as opened_zip:
        opened_zip.writestr("a/1.jpg", b"one")
        other = zipfile.ZipInfo("a/1.jpg")
        other.filename = "a\\1.jpg"  # as some systems write it
        opened_zip.writestr(other, b"two")
    with pytest.raises(RequestError) as caught:
        unpacked(archive)
    assert refused(caught) == (
        f"{archive} must hold each file once, but it holds 'a/1.jpg' 2 times; not extracted"
    )
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
