"""Decodes images in separate processes (decoder.py), as many at once as there are processes.

Threads would wait for each other: Python's lock is held for much of the work. Findings come back as JSON, pixels in an
unnamed file that all processes map, so that nothing is left behind whatever dies.
"""

import logging
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from trainable.data.decoding.decoder import Findings, Pixels
from trainable.data.decoding.requests import AHEAD, Attendant, Request, Waiting
from trainable.errors import RequestError

LOG = logging.getLogger(__name__)
REQUEST: Final = 32  # images; assumed
SLOT_BYTES: Final = 2**23
"""Of a request's pixels: fewer than 32 images if they are larger than 295 px; assumed."""


@dataclass(frozen=True)
class Decodable:
    """The only images whose pixels can be requested, so that a trial's processes never open a test image."""

    folder: Path
    digests: Mapping[str, str]
    """SHA-256 by file; a file with another digest is not decoded."""
    image_size: int

    @property
    def image_bytes(self) -> int:
        return 3 * self.image_size**2

    @property
    def images_a_request(self) -> int:
        return max(1, min(REQUEST, SLOT_BYTES // self.image_bytes))


@dataclass(frozen=True)
class Decoded:
    """Pixels that are being decoded."""

    answers: "Sequence[tuple[int, Future[dict[str, Any]]]]"
    """Each with the place of its first image."""

    def undecoded(self) -> list[int]:
        """Wait for all; return the places of images that can't be read, have changed, or are damaged.

        Raises:
            DecoderDied: a process ended twice over them.
        """
        return [
            first + place for first, each in self.answers for place in each.result()["undecoded"]
        ]


class Decoders:
    """`count` processes; none, with `running` False, if `count` is 1 or they can't be started.

    They end with this object, or with this process, however that ends. Start them before CUDA is used.
    """

    def __init__(
        self, count: int, store: Path | None = None, only: Decodable | None = None
    ) -> None:
        """With `only`, they decode its images, through a file in the folder `store`; otherwise they inspect any."""
        self.count, self.only = count, only
        self.running = False
        self._waiting = Waiting()
        self._attendants: list[Attendant] = []
        self._handles: list[int] = []
        if count == 1:
            return
        try:
            self._begin(store)
        except OSError as error:
            LOG.warning(
                "images are decoded by threads, since processes can't be started: %s", error
            )
            self.close()

    def _begin(self, store: Path | None) -> None:
        size = self.only.images_a_request * self.only.image_bytes if self.only is not None else 0
        slots = np.empty((self.count, AHEAD, 0), np.uint8)
        if size:
            assert store is not None
            slots = self._map(store, self.count * AHEAD * size).reshape(self.count, AHEAD, size)
        for number, some in enumerate(slots):
            self._attendants.append(
                Attendant(self._waiting, self._handles, some, number * AHEAD * size)
            )
        for each in self._attendants:
            each.begin()
        self.running = True

    def _map(self, store: Path, size: int) -> Pixels:
        """An unnamed file in `store`. Its space is allocated now: on a full disk, writing to a mapping is a SIGBUS."""
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            self._handles.append(os.dup(file.fileno()))
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process; whatever still waits for one gets a `DecoderDied`."""
        self.running = False
        self._waiting.end(len(self._attendants))
        for each in self._attendants:
            each.process.kill()
        for each in self._attendants:
            each.end()
        for handle in self._handles:
            os.close(handle)
        self._attendants, self._handles = [], []

    @property
    def pids(self) -> list[int]:
        """Of the present processes."""
        return [each.process.pid for each in self._attendants]

    def look(self, folder: Path, files: Sequence[str]) -> Iterator[Findings]:
        """Findings of `files` in `folder`, in their order.

        Raises:
            DecoderDied: a process ended twice over some of them.
        """
        assert self.only is None, "these processes decode given images, and inspect none"
        each = max(1, min(REQUEST, len(files) // (4 * self.count)))
        answers = deque(
            self._ask(Request({"folder": str(folder), "look": list(files[start : start + each])}))
            for start in range(0, len(files), each)
        )
        while answers:
            yield from map(tuple, answers.popleft().result()["rows"])

    def pixels(self, files: Sequence[str], into: Pixels) -> Decoded:
        """Start to decode `files` into `into`: (images, 3, size, size).

        Raises:
            RequestError: these processes are for other images.
        """
        assert self.only is not None
        digests, each = self.only.digests, self.only.images_a_request
        for file in files:
            if file not in digests:
                raise RequestError(
                    f"only images that these processes were started for can be decoded, but {file} is not one of them"
                )
        answers = []
        for start in range(0, len(files), each):
            facts = {
                "folder": str(self.only.folder),
                "pixels": [(file, digests[file]) for file in files[start : start + each]],
                "size": self.only.image_size,
            }
            answers.append((start, self._ask(Request(facts, into[start : start + each]))))
        return Decoded(answers)

    def batches_ahead(self, batch_size: int) -> int:
        """Batches to request ahead so that no process runs out of work."""
        assert self.only is not None
        requests = -(-batch_size // self.only.images_a_request)
        return 1 + -(-(AHEAD + 1) * self.count // requests)

    def _ask(self, request: Request) -> "Future[dict[str, Any]]":
        self._waiting.put(request)
        return request.answer
