"""One process that runs trainable/data/decoding/decoder.py."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from trainable.data.decoding import decoder

# -P: no file beside decoder.py or in the current folder can replace a module. Not -I: if this process has its Pillow
# from PYTHONPATH, the other one must get the same. See `_environment` for PYTHONPATH=.
COMMAND: Final = (sys.executable, "-P", "-W", "ignore", decoder.__file__)
ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc keeps what the last image freed; otherwise 141 pages are faulted in again for each, 0.4 of its 2.0 ms
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**27),
}
LAST_WORDS: Final = 300  # characters of a dead process's last output; assumed


class DecoderProcess:
    """A decoding process, in a process group of its own, since Ctrl-C in a terminal goes to the whole group.

    It ends when its input is closed, which the kernel does when this process dies. So only this process may hold the
    other end: handles are not inherited, except by a fork without exec.
    """

    def __init__(self, handles: Sequence[int] = ()) -> None:
        """`handles` are open files that it inherits; it is told their numbers.

        Raises:
            OSError: the process or a file can't be created.
        """
        with tempfile.TemporaryFile() as errors:
            self._process = subprocess.Popen(
                [*COMMAND, *map(str, handles)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=handles,
                process_group=0,
                env=_environment(),
            )
            self._errors = os.dup(errors.fileno())
        self.pid = self._process.pid
        self._ended = ""

    def send(self, line: bytes) -> None:
        """Send a request; if the process is dead, `receive` shows it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # broken or closed
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self) -> bytes | None:
        """The next answer; None if the process has ended."""
        assert self._process.stdout is not None
        if self._ended:
            return None
        line = self._process.stdout.readline()
        return line if line.endswith(b"\n") else None

    def kill(self) -> None:
        """End it now, whatever it is doing; it holds nothing that could be lost."""
        self._process.kill()

    def close(self) -> str:
        """Wait until it has ended, free everything, and return how it ended, with its last output."""
        if not self._ended:
            code = self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(OSError):  # from what could no longer be written
                    pipe.close()
            self._ended = f"{_how(code)}{self._last_words()}"
        return self._ended

    def _last_words(self) -> str:
        length = os.fstat(self._errors).st_size
        said = os.pread(self._errors, LAST_WORDS, max(0, length - LAST_WORDS))
        os.close(self._errors)
        text = " ".join(said.decode(errors="replace").split())
        return f", and said: {text}" if text else ""


def _environment() -> dict[str, str]:
    """Our environment, but without modules from the current folder."""
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [folder for folder in folders if folder and os.path.normpath(folder) != os.curdir]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(others)}


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    said = " (the kernel does that when memory is short)" if code == -signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{said}"
