"""The store of chunks: one writer, many readers, and nothing that a crash leaves behind is believed."""

import fcntl
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.full_disk import files_of_at_most
from tests.support.processes import start
from trainable.frozen.store import Shelf, StoreUnavailable, evict, limit_of, make_room, stored
from trainable.hardware.cache import default_folder

VALUES = torch.arange(24, dtype=torch.float32).reshape(3, 2, 2, 2)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.open(tmp_path, {"holds": "test"})


def again(shelf: Shelf) -> Shelf:
    """The same folder as another process sees it."""
    return Shelf(shelf.folder, shelf.limit_bytes)


@pytest.mark.parametrize("format", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_a_chunk_is_read_as_it_was_written(shelf: Shelf, format: torch.dtype) -> None:
    values = VALUES.to(format)
    shelf.write("a", values)
    chunk = again(shelf).read("a")
    assert chunk is not None and chunk.format is format
    found = torch.from_numpy(chunk.values.copy())
    assert torch.equal(found.view(torch.bfloat16) if format is torch.bfloat16 else found, values)
    with pytest.raises(ValueError, match="read-only"):
        chunk.values[0] = 0
    some = chunk.rows(1, 3)
    assert torch.equal(some, values[1:3])
    some += 1  # the reader's own
    assert torch.equal(chunk.rows(1, 3), values[1:3])


def flip_a_bit(path: Path, at: int = 17) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def with_footer_of(path: Path, beyond: int) -> None:
    """As if its footer began so many bytes before the file."""
    content = path.read_bytes()[:-16]
    path.write_bytes(content + struct.pack("<Q8s", len(content) + beyond, b"FACECHNK"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flip_a_bit,
    "a bit of the mark at the end": lambda path: flip_a_bit(path, -1),
    "a footer too long": lambda path: with_footer_of(path, 1),
    "a footer far too long": lambda path: with_footer_of(path, 10**9),
    "nothing but a footer": lambda path: with_footer_of(path, 0),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "no footer": lambda path: path.write_bytes(path.read_bytes()[:96]),
    "longer": lambda path: path.write_bytes(b"x" + path.read_bytes()),
    "empty": lambda path: path.write_bytes(b""),
    "another": lambda path: path.write_bytes(b"something else altogether, and long enough"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_chunk_is_no_chunk(shelf: Shelf, damage: Callable[[Path], object]) -> None:
    shelf.write("a", VALUES)
    damage(shelf.folder / "a")
    assert again(shelf).read("a") is None
    assert not shelf.has("a")
    shelf.write("a", VALUES)
    assert again(shelf).read("a") is not None


def test_one_process_at_a_time_has_the_claim(shelf: Shelf) -> None:
    with shelf.claim("a") as first, again(shelf).claim("a") as second, shelf.claim("b") as other:
        assert (first, second, other) == (True, False, True)
    with shelf.claim("a") as third:
        assert third
    assert list(shelf.folder.glob("*.lock")) == []


def test_a_claim_is_held_until_its_last_use_ends_and_not_taken_up_again(shelf: Shelf) -> None:
    claim = shelf.try_claim("a")
    assert claim is not None and claim.is_held
    assert claim.again() and claim.again()  # three uses
    for _ in range(2):
        claim.release()
        assert claim.is_held
        assert again(shelf).try_claim("a") is None
    claim.release()
    assert not claim.is_held
    assert not claim.again() and not claim.again() and not claim.is_held
    with again(shelf).claim("a") as other:
        assert other


@pytest.mark.whole
def test_a_claim_dies_with_its_process_and_what_it_left_is_cleared_away(shelf: Shelf) -> None:
    program = (
        "import sys, time; from pathlib import Path; from trainable.frozen.store import Shelf\n"
        f"shelf = Shelf(Path({str(shelf.folder)!r}), None)\n"
        "with shelf.claim('a') as mine:\n"
        "    (shelf.folder / 'a.1.tmp').write_bytes(b'half')\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    process = start([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    with shelf.claim("a") as mine:
        assert not mine
    process.send_signal(signal.SIGKILL)
    process.wait()
    with shelf.claim("a") as mine:
        assert mine
        shelf.write("a", VALUES)
    assert [path.name for path in shelf.folder.iterdir() if path.name != "key.json"] == ["a"]


def test_a_write_that_fails_says_so_and_leaves_nothing(shelf: Shelf) -> None:
    with (
        pytest.raises(StoreUnavailable, match="can't be written: File too large"),
        files_of_at_most(64),
    ):
        shelf.write("a", VALUES)
    assert stored(shelf.folder.parent) == []


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="can't be created: Not a directory"):
        Shelf.open(tmp_path / "file", {})


def folder_in_its_place(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path)


def test_a_store_that_can_not_be_read_or_locked_is_said_with_its_file(shelf: Shelf) -> None:
    """Never as a chunk that is not there, which would be computed again for each trial."""
    shelf.write("a", VALUES)
    link_to_itself(shelf.folder / "a")
    said = f"{shelf.folder}/a can't be read: Too many levels of symbolic links"
    with pytest.raises(StoreUnavailable, match=said):
        again(shelf).read("a")
    folder_in_its_place(shelf.folder / "a")
    with pytest.raises(
        StoreUnavailable, match=f"{shelf.folder}/a can't be locked and mapped: Is a directory"
    ):
        again(shelf).read("a")
    folder_in_its_place(shelf.folder / "b.lock")
    with pytest.raises(StoreUnavailable, match=r"b.lock can't be locked: Is a directory"):
        shelf.try_claim("b")
    chunks = shelf.folder.parent
    shutil.rmtree(chunks)
    chunks.write_text("a file in the place of the store")
    with pytest.raises(StoreUnavailable, match=f"{shelf.folder}/a can't be read: Not a directory"):
        again(shelf).read("a")


def test_a_chunk_that_is_evicted_while_it_is_opened_is_not_there(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process deletes it, or is about to: it holds the lock for that."""
    shelf.write("a", VALUES)
    lock = fcntl.flock

    def evicted_first(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert evict(shelf.folder / "a")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", evicted_first)
    assert shelf.read("a") is None
    shelf.write("a", VALUES)
    with (shelf.folder / "a").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert again(shelf).read("a") is None
    assert again(shelf).read("a") is not None


def used(shelf: Shelf, name: str, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(shelf.folder / name, (then, then))


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    shelf = Shelf.open(tmp_path, {"holds": "test"})
    for number, name in enumerate("abcd"):
        shelf.write(name, VALUES)
        used(shelf, name, 400 - 100 * number)
    one = (shelf.folder / "a").stat().st_size
    in_use = shelf.read("a")  # the oldest, and now the newest
    used(shelf, "a", 999)
    make_room(tmp_path / "chunks", one, limit_bytes=4 * one)
    assert sorted(each.path.name for each in stored(tmp_path / "chunks")) == ["a", "c", "d"]
    with pytest.raises(StoreUnavailable, match="--store-limit"):
        make_room(tmp_path / "chunks", one, limit_bytes=one)
    assert [each.path.name for each in stored(tmp_path / "chunks")] == ["a"]
    assert in_use is not None and np.array_equal(in_use.values, VALUES.numpy())


def test_a_chunk_of_just_the_limits_size_fits_and_one_byte_less_is_too_little(
    shelf: Shelf,
) -> None:
    with pytest.raises(StoreUnavailable, match="--store-limit"):
        Shelf(shelf.folder, VALUES.nbytes - 1).write("a", VALUES)
    Shelf(shelf.folder, VALUES.nbytes).write("a", VALUES)
    assert again(shelf).read("a") is not None


def test_what_has_no_room_is_told_in_gigabytes(shelf: Shelf) -> None:
    """Beside half a gigabyte that somebody is writing: a file with a length and no content."""
    with (shelf.folder / "a.1.tmp").open("wb") as file:
        file.truncate(500_000_000)
    said = "the limit of 1.00 GB leaves no room for 2.50 GB beside 0.50 GB in use"
    with pytest.raises(StoreUnavailable, match=said):
        make_room(shelf.folder.parent, 2_500_000_000, limit_bytes=10**9)


def test_nothing_goes_where_there_is_just_room_enough(shelf: Shelf) -> None:
    shelf.write("a", VALUES)
    taken = (shelf.folder / "a").stat().st_size
    make_room(shelf.folder.parent, 100, limit_bytes=taken + 100)
    assert shelf.has("a")
    make_room(shelf.folder.parent, 100, limit_bytes=taken + 99)
    assert not shelf.has("a")


def test_a_half_written_chunk_goes_once_its_writer_has_been_silent_for_a_minute(
    shelf: Shelf,
) -> None:
    for name, seconds_ago in (("a.1.tmp", 30), ("b.1.tmp", 90)):
        (shelf.folder / name).write_bytes(b"half")
        used(shelf, name, seconds_ago)
    make_room(shelf.folder.parent, 10, limit_bytes=14)
    assert [each.path.name for each in stored(shelf.folder.parent)] == ["a.1.tmp"]
    with pytest.raises(StoreUnavailable):
        make_room(shelf.folder.parent, 10, limit_bytes=13)


def test_what_others_delete_while_room_is_made_is_room_made(shelf: Shelf) -> None:
    """A link to nothing is, as a file deleted a moment ago, in the listing and nowhere else."""
    shelf.write("a", VALUES)
    (shelf.folder / "b").symlink_to("nothing")
    assert [each.path.name for each in stored(shelf.folder.parent)] == ["a"]
    assert evict(shelf.folder / "b") and evict(shelf.folder / "c.1.tmp")


def test_room_can_not_be_made_where_there_is_no_store_any_more(shelf: Shelf) -> None:
    chunks = shelf.folder.parent
    shutil.rmtree(chunks)
    with pytest.raises(StoreUnavailable, match=f"{chunks} can't be read: No such file"):
        shelf.write("a", VALUES)


def test_what_can_not_be_opened_stays_and_is_no_room_made(shelf: Shelf) -> None:
    link_to_itself(shelf.folder / "a")
    assert not evict(shelf.folder / "a")
    assert (shelf.folder / "a").is_symlink()


def test_without_a_limit_the_store_takes_half_of_what_is_free_and_its_own(tmp_path: Path) -> None:
    """Others may write to the disk meanwhile."""
    free = shutil.disk_usage(tmp_path).free
    assert limit_of(tmp_path, 0, None) == pytest.approx(free / 2, rel=0.1)
    assert limit_of(tmp_path, 20 * free, None) == pytest.approx(21 * free / 2, rel=0.01)
    assert limit_of(tmp_path, 20 * free, 7) == 7


def test_the_store_lies_where_it_is_asked_for_else_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SWEEP_STORE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "face-attribute-sweep"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache" / "face-attribute-sweep"
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"


def test_another_key_is_another_shelf(tmp_path: Path) -> None:
    one, same, other = (Shelf.open(tmp_path, {"cut": cut}).folder for cut in (24, 24, 31))
    assert one == same != other


def test_a_shelf_lies_where_every_version_looks_for_it(tmp_path: Path) -> None:
    digest = hashlib.sha256(b'{"cut": 24, "side": 32}').hexdigest()
    for facts in ({"cut": 24, "side": 32}, {"side": 32, "cut": 24}):
        assert Shelf.open(tmp_path, facts).folder == tmp_path / "chunks" / digest[:16]
