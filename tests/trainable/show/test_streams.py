"""Commands whose output is closed, full, gone or without some characters: real processes and real files."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import start
from tests.support.project import ROOT
from trainable.show import streams
from trainable.show.terminal import PlainConsole

COMMAND = """
import sys
from trainable.errors import RequestError
from trainable.show.streams import go_on
from trainable.show.terminal import PlainConsole, run_command

def app(arguments, **options):
    what, *_ = arguments
    if what == "refuse":
        raise RequestError("the number must be even, but it is 3; take 4")
    if what == "exit":
        sys.exit(3)
    if what == "fault":
        raise ValueError("of ours")
    if what == "sweep":
        go_on()
    console = PlainConsole()
    for line in range(2000):
        console.print(f"{line} … 0.5–0.7 ★")
        print("and print", flush=True)
    open(sys.argv[2], "w").write("the end")

run_command("command", app)
"""


def command(
    what: str, tmp_path: Any, before: Callable[[], None] | None = None, **facts: Any
) -> "subprocess.Popen[bytes]":
    return start(
        [sys.executable, "-c", COMMAND, what, str(tmp_path / what)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        preexec_fn=before,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **facts},
    )


def read_a_line_and_go(process: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    """As `head -1` does; exit code and standard error."""
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    return process.wait(), said


def test_when_the_reader_goes_a_command_that_reads_ends_quietly_and_a_sweep_goes_on(
    tmp_path: Any,
) -> None:
    reading, sweep = command("read", tmp_path), command("sweep", tmp_path)
    assert read_a_line_and_go(reading) == (141, b"")
    assert read_a_line_and_go(sweep) == (0, b"")
    assert (tmp_path / "sweep").exists() and not (tmp_path / "read").exists()


def test_on_a_full_disk_a_command_that_reads_says_so_and_a_sweep_goes_on(tmp_path: Any) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        reading = command("read", tmp_path, stdout=full)
        sweep = command("sweep", tmp_path, stdout=full, stderr=full)
        refused = command("refuse", tmp_path, stdout=full, stderr=full)
    assert reading.stderr is not None
    line = b"command: standard output: No space left on device\n"
    assert (reading.wait(), reading.stderr.read()) == (2, line)
    assert (sweep.wait(), refused.wait()) == (0, 2)
    assert (tmp_path / "sweep").exists()


def test_what_is_closed_from_the_start_takes_nothing_and_no_file_gets_it_instead(
    tmp_path: Any,
) -> None:
    def close() -> None:
        for handle in (0, 1, 2):
            os.close(handle)

    done = command("read", tmp_path, close, stdout=None, stderr=None)
    refused = command("refuse", tmp_path, close, stdout=None, stderr=None)
    assert (done.wait(), refused.wait()) == (0, 2)
    assert (tmp_path / "read").read_text() == "the end"


def test_characters_that_an_encoding_lacks_are_replaced(tmp_path: Any) -> None:
    for encoding, first in (("ascii", b"0 ... 0.5-0.7 "), ("latin-1", b"0 ... 0.5-0.7 ")):
        process = command("read", tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding})
        out, err = process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert out.startswith(first) and b"2605" in out[:40]


def test_a_code_that_a_library_exits_with_stands_and_a_fault_of_ours_shows_where_it_is(
    tmp_path: Any,
) -> None:
    exits, fault = command("exit", tmp_path), command("fault", tmp_path)
    (_, nothing), (_, traceback) = exits.communicate(), fault.communicate()
    assert (exits.returncode, nothing) == (3, b"")
    assert fault.returncode == 1
    assert traceback.startswith(b"Traceback") and traceback.endswith(b"ValueError: of ours\n")


def test_only_what_is_written_is_replaced() -> None:
    """What can't be read is an error."""
    unread = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    with pytest.raises(UnicodeDecodeError):
        streams._replaced(unread)
    unwritten = UnicodeEncodeError("ascii", "1–2★", 1, 4, "ordinal not in range")
    assert streams._replaced(unwritten) == (r"-2\u2605", 4)


def test_a_line_that_nobody_reads_any_more_is_the_callers_to_decide_on() -> None:
    """rich would end the process."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as gone,
        pytest.raises(BrokenPipeError),
    ):
        PlainConsole(file=gone).print("a line")


def test_without_lines_to_keep_there_is_no_log(tmp_path: Path) -> None:
    console = PlainConsole(file=io.StringIO())
    console.log_to(tmp_path / "log.txt")
    assert not (tmp_path / "log.txt").exists()
    with console.kept():
        console.print("a line")
        console.log_to(tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text().endswith(" sweep a line\n")
