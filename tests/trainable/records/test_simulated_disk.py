"""What the simulated disk may do, and that whole files and lines survive all of it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.crash_model import BLOCK, Recorder, SimulatedDisk, Tree, fate, write_tree
from trainable.records.files import (
    Disk,
    append_json,
    make_folders,
    read_json_lines,
    write_atomically,
    writing_to,
)


def left(
    folder: Path, act: Callable[[Disk], object], start: Tree, numbers: int = 60
) -> Iterator[tuple[bool, Tree]]:
    """Whether all was done when the power went, and what was left then: so many times after each step."""
    write_tree(start, folder)
    disk = Recorder(folder)
    with writing_to(disk):
        act(disk)
    shutil.rmtree(folder)
    for cut in range(len(disk.steps) + 1):
        simulated = SimulatedDisk(start)
        simulated.do(disk.steps[:cut])
        for number in range(numbers):
            yield cut == len(disk.steps), simulated.after_power_cut(fate(number))


def test_what_was_written_and_not_synced_is_lost_kept_or_torn(tmp_path: Path) -> None:
    old, new = b"o" * 700, b"n" * 1600

    def act(disk: Disk) -> None:
        with disk.open(tmp_path / "disk" / "a", "rb+") as file:
            file.write(new)

    found = {tree["a"] for _, tree in left(tmp_path / "disk", act, {"a": old})}
    assert {old, new} <= found, "lost, kept"
    contents = [content for content in found if isinstance(content, bytes)]
    assert any(new.startswith(each) and len(each) < 1600 for each in contents), "a beginning"
    assert any(each.endswith(b"\0") for each in contents), "a beginning and zeros"
    assert any(each[:BLOCK] == old[:BLOCK] and b"n" in each for each in contents), "blocks"


def test_what_was_synced_is_never_lost(tmp_path: Path) -> None:
    def act(disk: Disk) -> None:
        disk.write(tmp_path / "disk" / "a", b"first" * 200)
        disk.sync(tmp_path / "disk")
        with disk.open(tmp_path / "disk" / "a", "ab+") as file:
            file.write(b"second" * 200)

    for is_done, tree in left(tmp_path / "disk", act, {}):
        content = tree.get("a", b"")
        assert isinstance(content, bytes)
        assert content.startswith(b"first" * 200) or not is_done


def test_of_names_that_were_not_synced_any_are_lost(tmp_path: Path) -> None:
    def act(disk: Disk) -> None:
        for name in "abc":
            disk.create(tmp_path / "disk" / name)
        disk.rename(tmp_path / "disk" / "c", tmp_path / "disk" / "d")
        disk.unlink(tmp_path / "disk" / "old")

    whole = left(tmp_path / "disk", act, {"old": b""}, numbers=500)
    found = {tuple(sorted(tree)) for is_done, tree in whole if is_done}
    assert {("old",), ("a", "b", "d"), ("b", "old"), ("c",), ("a", "d")} <= found
    assert not any("c" in names and "d" in names for names in found), "a rename is one change"


def test_a_file_is_replaced_whole_wherever_the_power_goes(tmp_path: Path) -> None:
    old, new = b"old" * 500, b"new" * 500

    def act(disk: Disk) -> None:
        write_atomically(tmp_path / "disk" / "facts.json", new)

    for is_done, tree in left(tmp_path / "disk", act, {"facts.json": old}):
        assert tree["facts.json"] in ((new,) if is_done else (old, new))


@pytest.mark.parametrize("lines", [0, 1, 4])
def test_a_line_that_was_added_stays_and_one_that_was_not_is_left_out(
    tmp_path: Path, lines: int
) -> None:
    """Wherever it lies in the disk's blocks. What is left is written on, and the power goes once more."""
    folder = tmp_path / "disk"
    path = folder / "rows.jsonl"
    first, added, last = ({"row": name, "long": "x" * 280} for name in ("first", "added", "last"))
    before = [first] * lines
    content = b"".join(json.dumps(row).encode() + b"\n" for row in before)
    start: Tree = {path.name: content} if lines else {}

    def rows(tree: Tree) -> list[dict[str, object]]:
        write_tree(tree, folder)
        found = read_json_lines(path)
        shutil.rmtree(folder)
        return found

    seen = []
    for is_done, tree in left(folder, lambda disk: append_json(path, added), start):
        if (is_done, tree) not in seen:
            seen.append((is_done, tree))
            found = rows(tree)
            assert found == [*before, added] or (found == before and not is_done)
            for is_whole, after in left(folder, lambda disk: append_json(path, last), tree, 8):
                again = rows(after)
                assert again == [*found, last] or (again == found and not is_whole)
    assert len(seen) > 10


def test_a_folder_that_was_made_stays_with_those_around_it(tmp_path: Path) -> None:
    def act(disk: Disk) -> None:
        make_folders(tmp_path / "disk" / "a" / "b" / "c")

    for is_done, tree in left(tmp_path / "disk", act, {}):
        assert tree == {"a": {"b": {"c": {}}}} or not is_done


def test_a_folder_of_one_that_died_before_it_was_synced_is_synced_by_the_next(
    tmp_path: Path,
) -> None:
    def act(disk: Disk) -> None:
        disk.make_folder(tmp_path / "disk" / "a")
        make_folders(tmp_path / "disk" / "a")

    for is_done, tree in left(tmp_path / "disk", act, {}):
        assert tree == {"a": {}} or not is_done
