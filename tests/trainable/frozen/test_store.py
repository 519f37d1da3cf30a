"""The store of chunks: one writer, many readers, and nothing that a crash leaves behind is believed."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from trainable.frozen.store import Shelf, StoreUnavailable, make_room, stored

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


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flip_a_bit,
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


@pytest.mark.whole
def test_a_claim_dies_with_its_process_and_what_it_left_is_cleared_away(shelf: Shelf) -> None:
    program = (
        "import sys, time; from pathlib import Path; from trainable.frozen.store import Shelf\n"
        f"shelf = Shelf(Path({str(shelf.folder)!r}), None)\n"
        "with shelf.claim('a') as mine:\n"
        "    (shelf.folder / 'a.1.tmp').write_bytes(b'half')\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    with shelf.claim("a") as mine:
        assert not mine
    process.send_signal(signal.SIGKILL)
    process.wait()
    with shelf.claim("a") as mine:
        assert mine
        shelf.write("a", VALUES)
    assert [path.name for path in shelf.folder.iterdir() if path.name != "key.json"] == ["a"]


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 64 bytes: the system's own error, as from a full disk. Not the log of these tests."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_says_so_and_leaves_nothing(shelf: Shelf) -> None:
    with (
        pytest.raises(StoreUnavailable, match="can't be written: File too large"),
        small_files(),
    ):
        shelf.write("a", VALUES)
    assert stored(shelf.folder.parent) == []


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="can't be made: Not a directory"):
        Shelf.open(tmp_path / "file", {})


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


def test_another_key_is_another_shelf(tmp_path: Path) -> None:
    one, same, other = (Shelf.open(tmp_path, {"cut": cut}).folder for cut in (24, 24, 31))
    assert one == same != other
