"""Every image looked at once: what is found, and that nothing is read twice."""

import hashlib
import io
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.support.faces import Faces, picture, write_faces
from trainable.data import load_pixels
from trainable.data.inspection import COLUMNS, inspect_images


@pytest.fixture
def own(tmp_path: Path) -> Faces:
    """Twelve images, to be changed."""
    return write_faces(tmp_path, 12)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Where an inspection remembers; not there yet."""
    return tmp_path / "cache"


def test_every_image_is_measured_and_its_content_digested(own: Faces, memory: Path) -> None:
    found = inspect_images(own.images, own.files, memory)
    assert found.problems == []
    assert found.newly_read == 12
    assert found.images["file"].tolist() == list(own.files)
    assert set(found.images["width"]) == {36}
    assert set(found.images["height"]) == {44}
    for row in found.images.itertuples():
        content = (own.images / str(row.file)).read_bytes()
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        assert row.bytes == len(content)


def test_it_returns_findings_never_pixels_or_labels(own: Faces, memory: Path) -> None:
    assert list(inspect_images(own.images, own.files, memory).images.columns) == COLUMNS


def test_what_did_not_change_is_not_read_again(own: Faces, memory: Path) -> None:
    first = inspect_images(own.images, own.files, memory)
    for (
        file
    ) in own.files:  # other content under the same size and time: only a second look would see it
        facts = (own.images / file).stat()
        (own.images / file).write_bytes(b"x" * facts.st_size)
        os.utime(own.images / file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    second = inspect_images(own.images, own.files, memory)
    assert second.newly_read == 0
    assert second.images.equals(first.images)
    assert second.digest == first.digest


def test_what_changed_is_read_again_and_nothing_else(own: Faces, memory: Path) -> None:
    first = inspect_images(own.images, own.files, memory)
    picture(1, 99, 50).save(own.images / own.files[3])
    second = inspect_images(own.images, own.files, memory)
    assert second.newly_read == 1
    changed = first.images["sha256"] != second.images["sha256"]
    assert first.images.loc[changed, "file"].tolist() == [own.files[3]]
    assert second.images.loc[3, "width"] == 50
    assert second.digest != first.digest


def test_other_content_of_the_same_size_is_read_again(own: Faces, memory: Path) -> None:
    first = inspect_images(own.images, own.files, memory)
    path = own.images / own.files[3]
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = inspect_images(own.images, own.files, memory)
    assert second.newly_read == 1
    assert second.digest != first.digest


def test_two_folders_and_two_lists_share_one_memory(
    own: Faces, memory: Path, tmp_path: Path
) -> None:
    shutil.copytree(own.images, tmp_path / "copy")
    assert inspect_images(own.images, own.files[:8], memory).newly_read == 8
    assert inspect_images(tmp_path / "copy", own.files, memory).newly_read == 12
    assert inspect_images(own.images, own.files[4:], memory).newly_read == 4
    assert inspect_images(own.images, own.files, memory).newly_read == 0


@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing", None])
def test_a_memory_that_is_damaged_or_gone_is_made_anew(
    own: Faces, memory: Path, damage: bytes | None
) -> None:
    first = inspect_images(own.images, own.files, memory)
    (remembered,) = memory.iterdir()
    remembered.write_bytes(damage) if damage is not None else remembered.unlink()
    second = inspect_images(own.images, own.files, memory)
    assert second.newly_read == 12
    assert second.images.equals(first.images)
    assert inspect_images(own.images, own.files, memory).newly_read == 0


def test_without_room_to_remember_the_inspection_goes_on_and_says_so(
    own: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        assert inspect_images(own.images, own.files, tmp_path / "file" / "memory").newly_read == 12
    assert caplog.text.count("can't be written") == 2


def test_progress_adds_up_to_the_number_of_images(own: Faces, memory: Path) -> None:
    counts: list[int] = []
    inspect_images(own.images, own.files[:5], memory, counts.append)
    assert sum(counts) == 5
    counts.clear()
    inspect_images(own.images, own.files, memory, counts.append)
    assert sum(counts) == 12
    assert len(counts) > 5


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF with these entries: tag, type, count, four bytes of value."""
    packed = b"".join(struct.pack(">HHI4s", *entry) for entry in entries)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + packed + b"\0\0\0\0"


LYING = (0x0112, 3, 1, struct.pack(">HH", 6, 0))  # an orientation that Pillow turns upright
SENSELESS = (0x0100, 2, 4, b"abc\0")  # a width in letters, over which Pillow stumbles when it turns


def jpeg(exif_bytes: bytes = b"") -> bytes:
    """A picture with these EXIF bytes."""
    buffer = io.BytesIO()
    picture(1, 0, 36).save(buffer, "JPEG", exif=exif_bytes)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not a readable image"),
        (jpeg()[: len(jpeg()) // 2], "is not a readable image"),
        (jpeg()[:30], "is not a readable image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "is not a readable image"),
        (b"GIF89a" + b"\xff" * 20, "is not a readable image"),
        (jpeg(exif(SENSELESS, LYING)), "is not a readable image"),
    ],
    ids=["empty", "html", "half", "header", "png", "gif", "exif"],
)
def test_an_image_that_cannot_be_used_is_found(
    own: Faces, memory: Path, content: bytes, problem: str
) -> None:
    (own.images / own.files[7]).write_bytes(content)
    for newly_read in (12, 0):  # and remembered
        found = inspect_images(own.images, own.files, memory)
        assert found.newly_read == newly_read
        ((file, told),) = found.problems
        assert file == own.files[7]
        assert told.startswith(problem)
        assert "\n" not in told
        assert " object at " not in told


def test_a_repaired_image_is_no_problem_any_more(own: Faces, memory: Path) -> None:
    path = own.images / own.files[7]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert len(inspect_images(own.images, own.files, memory).problems) == 1
    path.write_bytes(whole)
    assert inspect_images(own.images, own.files, memory).problems == []


def test_a_file_that_went_away_is_found_each_time(own: Faces, memory: Path) -> None:
    inspect_images(own.images, own.files, memory)
    (own.images / own.files[2]).unlink()
    (own.images / own.files[5]).unlink()
    (own.images / own.files[5]).mkdir()
    for _ in range(2):
        problems = dict(inspect_images(own.images, own.files, memory).problems)
        assert problems.keys() == {own.files[2], own.files[5]}
        assert all(told.startswith("can't be read") for told in problems.values())


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what was damaged
def test_an_image_that_passes_can_be_opened_for_training(tmp_path: Path, memory: Path) -> None:
    """Hundreds of damaged pictures: none ends the inspection, and none that it lets pass ends a training."""
    turned = exif(LYING)
    whole = {"jpg": jpeg(turned)}
    for suffix, kind in (("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"), ("bmp", "BMP")):
        buffer = io.BytesIO()
        picture(1, 0, 16).save(buffer, kind, exif=turned)
        whole[suffix] = buffer.getvalue()
    draw = np.random.default_rng(0)
    files = [f"whole.{suffix}" for suffix in whole]
    for suffix, content in whole.items():
        (tmp_path / f"whole.{suffix}").write_bytes(content)
        for number in range(150):
            damaged = bytearray(content)
            for place in draw.integers(0, min(len(content), 200), draw.integers(1, 5)):
                damaged[place] = draw.integers(0, 256)
            files.append(f"{number}.{suffix}")
            (tmp_path / files[-1]).write_bytes(damaged)
    found = inspect_images(tmp_path, files, memory)
    bad = {file for file, _ in found.problems}
    assert 0 < len(bad) < len(files)
    for file in set(files) - bad:
        load_pixels(tmp_path / file, 32)


def test_the_digest_is_of_names_and_contents_in_any_order(own: Faces, memory: Path) -> None:
    digest = inspect_images(own.images, own.files, memory).digest
    assert inspect_images(own.images, own.files[::-1], memory).digest == digest
    assert inspect_images(own.images, own.files[:-1], memory).digest != digest
    one, other = own.images / own.files[0], own.images / own.files[1]
    one.rename(own.images / "aside")
    other.rename(one)
    (own.images / "aside").rename(other)
    assert inspect_images(own.images, own.files, memory).digest != digest
