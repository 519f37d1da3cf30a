"""Requests to decoding processes, and the thread that sends them to one process and receives its answers."""

import json
import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainable.data.decoding.decoder import Pixels
from trainable.data.decoding.process import DecoderProcess
from trainable.errors import RequestError

AHEAD: Final = 2  # requests that a process holds, so that it waits neither for its thread nor for our lock; assumed


class DecoderDied(RequestError):
    """A process ended twice on the same request, or all were told to end."""


@dataclass
class Request:
    """One request, about some images in a folder."""

    facts: dict[str, Any]
    into: Pixels | None = None
    """(images, 3, size, size): where to put pixels."""
    answer: "Future[dict[str, Any]]" = field(default_factory=Future)
    deaths: int = 0

    def died(self, how: str) -> None:
        """Tell the waiting caller that this request can't be answered."""
        files = self.facts.get("look") or [file for file, _ in self.facts["pixels"]]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.answer.set_exception(
            DecoderDied(
                f"a decoding process must stay alive until it has answered, but on "
                f"{Path(self.facts['folder']) / files[0]}{more} {how}; "
                "check whether memory is short, and check these files"
            )
        )


class Waiting:
    """Requests that no process has yet."""

    def __init__(self) -> None:
        self.ended = False
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._idle: set[int] = set()
        """Threads whose process has nothing to do."""

    def put(self, request: Request) -> None:
        self._queue.put(request)
        if self.ended:  # no thread will take it
            self._refuse()

    def end(self, threads: int) -> None:
        """Let this many threads end, and refuse all requests that were not started."""
        self.ended = True
        self._refuse()
        for _ in range(threads):
            self._queue.put(None)

    def _refuse(self) -> None:
        ends = 0  # of threads that have yet to be told
        with suppress(queue.Empty):
            while True:
                request = self._queue.get_nowait()
                if request is None:
                    ends += 1
                else:
                    request.died("all were told to end")
        for _ in range(ends):
            self._queue.put(None)

    def first(self) -> Request | None:
        """The next request for an idle process; None when no more will come."""
        me = threading.get_ident()
        self._idle.add(me)
        request = self._queue.get()
        self._idle.discard(me)
        return request

    def another(self) -> Request | None:
        """Another request for a busy process; None if the idle ones can take all there are."""
        if self.ended or self._queue.qsize() <= len(self._idle):
            return None
        with suppress(queue.Empty):
            request = self._queue.get_nowait()
            if request is not None:
                return request
            self._queue.put(None)
        return None


class Attendant:
    """A process, and the thread that serves it from `waiting`."""

    def __init__(
        self, waiting: Waiting, handles: Sequence[int], slots: Pixels, offset: int
    ) -> None:
        """`slots` (AHEAD, bytes) start `offset` bytes into the file that the process maps.

        Raises:
            OSError: the process can't be started.
        """
        self._waiting, self._handles = waiting, handles
        self._slots, self._offset = slots, offset
        self._free = deque(range(AHEAD))
        self._sent = deque[tuple[Request, int]]()  # with its slot; answered in this order
        self.process = DecoderProcess(handles)
        self._thread = threading.Thread(target=self._serve, name="decoder", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """After `Waiting.end`: wait until the thread and the process have ended."""
        self.process.kill()
        if self._thread.ident is not None:
            self._thread.join()
        self.process.close()

    def _serve(self) -> None:
        while self._take():
            line = self.process.receive()
            if line is None:
                self._replace()
            else:
                self._finish(line)

    def _take(self) -> bool:
        """Send as many requests as the process can hold; False when nothing is left to wait for."""
        while self._free:
            request = self._waiting.another() if self._sent else self._waiting.first()
            if request is None:
                break
            self._sent.append((request, self._free.popleft()))
            self._hand_over(*self._sent[-1])
        return bool(self._sent)

    def _hand_over(self, request: Request, slot: int) -> None:
        # Both answers fit into a pipe, so the process keeps reading, and neither side can wait for the other.
        at = self._offset + slot * self._slots.shape[1]
        self.process.send(json.dumps(request.facts | {"at": at}).encode() + b"\n")

    def _finish(self, line: bytes) -> None:
        request, slot = self._sent.popleft()
        try:
            answer = json.loads(line)
            if request.into is not None:
                found = self._slots[slot, : request.into.size]
                np.copyto(request.into, found.reshape(request.into.shape))
        except Exception as error:  # otherwise the caller would wait for ever
            request.answer.set_exception(error)
        else:
            request.answer.set_result(answer)
        self._free.append(slot)

    def _replace(self) -> None:
        """A new process gets the requests of one that has ended; the request on which it died, only once more."""
        how = self.process.close()
        self._sent[0][0].deaths += 1
        while self._sent and (self._sent[0][0].deaths > 1 or self._waiting.ended):
            request, slot = self._sent.popleft()
            request.died(f"it ended {how}")
            self._free.append(slot)
        if not self._waiting.ended:
            with suppress(OSError):  # then the dead one stays, and is found dead once more
                self.process = DecoderProcess(self._handles)
        if self._waiting.ended:
            self.process.kill()
        for each in self._sent:
            self._hand_over(*each)
