"""Stages that work in parallel: each in its own threads, with a bound on what is queued between two of them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

from trainable.frozen.store import Chunk, Claim, Shelf
from trainable.hardware.device import Device, Mark

Item = TypeVar("Item")
PIECE_BYTES: Final = 2**23
"""Of a host buffer; every writing thread has two, so four threads have 64 MiB; assumed."""
UPLOAD_BYTES: Final = 2**26  # of all buffers on the way to the device; assumed
WRITERS: Final = {
    "cpu": 1,
    "cuda": 4,
}  # threads; one hashes 1.2 GB/s (an H200's host, docs/log.md); on a CPU, a trial has one core
READERS: Final = {"cpu": 0, "cuda": 4}  # threads that check digests; as many as writers; assumed

thread_context: Callable[[], AbstractContextManager[object]] = nullcontext
"""The context of every stage's thread: a torch dispatch mode applies only to its own thread."""


def threads(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of threads that work within `thread_context`."""
    return ThreadPoolExecutor(
        count, thread_name_prefix=name, initializer=lambda: thread_context().__enter__()
    )


class Ahead(Generic[Item]):
    """The items of an iterator, made by a thread, at most `depth` items ahead."""

    def __init__(self, items: Iterator[Item], depth: int, name: str) -> None:
        self._items = items
        self._room = threading.Semaphore(depth)
        self._made: SimpleQueue[Item | BaseException] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._make, name=name, daemon=True)
        self._thread.start()

    def _make(self) -> None:
        with thread_context():
            try:
                while True:
                    self._room.acquire()
                    if self._closed:
                        break
                    self._made.put(next(self._items))
            except BaseException as error:  # also StopIteration: raised in `__next__`
                self._made.put(error)
            finally:
                if hasattr(self._items, "close"):
                    self._items.close()

    def __iter__(self) -> "Ahead[Item]":
        return self

    def __next__(self) -> Item:
        item = self._made.get()
        if isinstance(item, StopIteration):
            # Another one is raised: its traceback holds every frame above, and the tensors in these.
            self._made.put(item)
            raise StopIteration
        if isinstance(item, BaseException):
            self._made.put(item)
            raise item
        self._room.release()
        return item

    def close(self) -> None:
        """Make no more, and wait until the thread has ended."""
        self._closed = True
        self._room.release()
        self._thread.join()


class Uploads:
    """Sends host tensors to the device through a few host buffers, used in turn."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: deque[tuple[Tensor, Mark]] = deque()

    def send(self, host: Tensor) -> Tensor:
        """A copy on the device, queued there; `host` can be changed at once."""
        size = host.numel() * host.element_size()
        if size * 2 > UPLOAD_BYTES:  # directly, at the speed of pageable memory
            return host.to(self._device.torch, copy=True)
        if not self._buffers or len(self._buffers[0][0]) < size:
            count = min(4, UPLOAD_BYTES // size)
            self._buffers = deque(
                (self._device.host_buffer((size,), torch.uint8), Mark()) for _ in range(count)
            )
        buffer, sent = self._buffers.popleft()
        sent.wait()
        filled = buffer[:size].view(host.dtype).view(host.shape).copy_(host)
        arrived = filled.to(self._device.torch, non_blocking=True, copy=True)
        self._buffers.append((buffer, self._device.mark()))
        return arrived


class Readers:
    """Checks the digests of chunks on disk before they are needed, which is the longest part of reading them."""

    def __init__(self, device: Device) -> None:
        count = READERS[device.kind]
        self._pool = threads(count, "read") if count else None
        self._begun: dict[tuple[Path, str], Future[Chunk | None]] = {}

    def begin(self, shelf: Shelf, name: str) -> None:
        """Start to read a chunk; whatever is wrong with it shows up when it is needed."""
        if self._pool is not None:
            self._begun[shelf.folder, name] = self._pool.submit(shelf.read, name)

    def wait(self, shelf: Shelf, name: str) -> None:
        """Wait while the chunk is being read."""
        if future := self._begun.pop((shelf.folder, name), None):
            wait([future])

    def forget(self) -> None:
        """Stop reading."""
        for future in self._begun.values():
            future.cancel()
        self._begun.clear()

    def close(self) -> None:
        self.forget()
        if self._pool is not None:
            self._pool.shutdown()


class Writers:
    """Writes chunks from the device to disk, in the background."""

    def __init__(self, device: Device) -> None:
        self._device = device
        count = WRITERS[device.kind]
        self._pool = threads(count, "write")
        self._own = threading.local()
        self._room = threading.BoundedSemaphore(count + 1)

    def write(
        self, shelf: Shelf, name: str, values: Tensor, claim: Claim, held: bool
    ) -> Future[Chunk | None]:
        """Start to write `values`, which must not change until done; gives the chunk, mapped unless `held` in memory.

        At most one chunk per thread and one more wait if they are not `held`. The claim's use ends when writing ends,
        fails (StoreUnavailable) or is called off.
        """
        after = self._device.mark()
        if not held:
            self._room.acquire()

        def over(_: Future[Chunk | None]) -> None:
            if not held:
                self._room.release()
            claim.release()

        future = self._pool.submit(self._write, shelf, name, values, after, held)
        future.add_done_callback(over)
        return future

    def _write(
        self, shelf: Shelf, name: str, values: Tensor, after: Mark, held: bool
    ) -> Chunk | None:
        with self._device.beside():
            after.precede()
            shelf.write_pieces(name, values.dtype, tuple(values.shape), self._pieces(values))
        return None if held else shelf.read(name)

    def _pieces(self, values: Tensor) -> Iterator[memoryview]:
        """The bytes of `values`: while one piece is hashed and written, the next is being copied."""
        if not hasattr(self._own, "buffers"):
            with self._device.queueing:
                self._own.buffers = [
                    self._device.host_buffer((PIECE_BYTES,), torch.uint8) for _ in range(2)
                ]
        queued: deque[tuple[Tensor, Mark]] = deque()
        for number, piece in enumerate(values.flatten().view(torch.uint8).split(PIECE_BYTES)):
            buffer = self._own.buffers[number % 2][: len(piece)]
            with self._device.queueing:
                buffer.copy_(piece, non_blocking=True)
                queued.append((buffer, self._device.mark()))
            if len(queued) == 2:
                yield _arrived(*queued.popleft())
        while queued:
            yield _arrived(*queued.popleft())

    def close(self) -> None:
        """Finish what was started."""
        self._pool.shutdown()


def _arrived(buffer: Tensor, mark: Mark) -> memoryview:
    mark.wait()
    return buffer.numpy().data
