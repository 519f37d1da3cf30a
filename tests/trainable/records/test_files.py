"""A file is whole or old after any death of its writer, and lines are read as far as they are whole."""

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st

from tests.support.full_disk import files_of_at_most
from trainable.errors import RequestError
from trainable.records.files import (
    LONGEST_LINE,
    append_json,
    read_bytes,
    read_json,
    read_json_lines,
    write_atomically,
    write_json,
)
from trainable.records.run_folder import RunFolder

Text = Callable[[pytest.ExceptionInfo[Exception]], str]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder in its first session."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder.session, {"number": 1})
    return folder


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_under_way_sees_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomically(path, b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new" * 1000)
        assert reader.read() == b"old"


def test_a_writer_killed_before_the_rename_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomically(path, b"old")
    child = os.fork()
    if child == 0:
        try:
            os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
            write_atomically(path, b"new" * 1000)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_disk_that_fills_up_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="too large"), files_of_at_most(1000):
        write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_read_in_pieces_or_shrinks_meanwhile_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reads 2 GiB at most at a time, and a network's file system less."""
    path = tmp_path / "weights"
    path.write_bytes(content := bytes(range(256)) * 10)
    read = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: read(handle, min(size, 1_000)))
    assert read_bytes(path) == content
    asked = os.fstat

    def shrinking(handle: int) -> os.stat_result:
        found = asked(handle)
        os.truncate(path, 1_500)
        return found

    monkeypatch.setattr(os, "fstat", shrinking)
    assert read_bytes(path) == content[:1_500]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_other_readers_cannot_read_is_not_written(tmp_path: Path, bad: float) -> None:
    write_json(tmp_path / "facts.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "facts.json", {"loss": bad})
    with pytest.raises(ValueError, match="JSON"):
        append_json(tmp_path / "lines.jsonl", {"loss": bad})
    assert read_json(tmp_path / "facts.json") == {"loss": 1.0}
    assert read_json_lines(tmp_path / "lines.jsonl") == []


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1, 2]", b"\xff\xfe"])
def test_a_file_that_holds_no_object_is_named(
    tmp_path: Path, refused: Text, content: bytes | None
) -> None:
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_json(path)
    assert str(path) in refused(caught)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@limited(max_examples=50)
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=5), st.data())
def test_lines_cut_anywhere_are_read_up_to_the_last_whole_one_and_written_on(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    for line in lines:
        append_json(path, line)
    assert read_json_lines(path) == lines
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert read_json_lines(path) == lines[:whole]
    append_json(path, {"after": "the cut"})
    assert read_json_lines(path) == [*lines[:whole], {"after": "the cut"}]


def test_a_half_written_line_is_told_when_it_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    append_json(path, {"epoch": 1})
    path.write_bytes(path.read_bytes() + b'{"epoch": 2, "tr')
    with caplog.at_level(logging.INFO):
        read_json_lines(path)
        append_json(path, {"epoch": 2})
    assert len([r for r in caplog.records if "16 bytes" in r.getMessage()]) == 2


@pytest.mark.parametrize("torn", [b"\0" * 40 + b'ch": 2}\n', b"\0" * 9, b"}\n"])
def test_a_last_line_that_a_power_cut_tore_is_left_out_and_written_over(
    tmp_path: Path, torn: bytes
) -> None:
    """Its end may be there without its beginning."""
    path = tmp_path / "rows.jsonl"
    for whole in (b"", b'{"epoch": 1}\n'):
        path.write_bytes(whole + torn)
        found = [{"epoch": 1}] if whole else []
        assert read_json_lines(path) == found
        append_json(path, {"epoch": 2})
        assert read_json_lines(path) == [*found, {"epoch": 2}]


def test_a_line_longer_than_what_is_looked_at_is_no_half_written_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    long = {"epoch": 1, "long": "x" * 3 * LONGEST_LINE}
    append_json(path, long)
    append_json(path, {"epoch": 2})
    assert read_json_lines(path) == [long, {"epoch": 2}]


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"7", b"null", b"[1]"])
def test_a_damaged_line_before_the_last_is_named(
    tmp_path: Path, refused: Text, line: bytes
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(RequestError) as caught:
        read_json_lines(path)
    assert f"line 2 of {path}" in refused(caught)
