"""Which validation images a trial got right in each epoch: right.bits, one bit per image, one epoch after another.

Epoch k is `epoch_bytes(images)` bytes at (k - 1) times that: numpy's packbits of the images in the split's order, zeros
at the end. An epoch counts once its row is recorded, and is on disk before that. A trial has all its epochs or none.
numpy is imported where it is needed, so that commands that only read rows and statuses start without it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainable.records.files import StrPath, current_disk, read_bytes

if TYPE_CHECKING:
    import numpy as np

    Right = np.ndarray[Any, np.dtype[np.bool_]]


def epoch_bytes(images: int) -> int:
    """How many bytes an epoch takes: 375 for 3,000 images."""
    return (images + 7) // 8


def append_right(path: Path, epoch: int, right: "Right") -> None:
    """Add an epoch, right (images,); it is on disk when this returns.

    Except for the name of a new file, which is synced with that of the rows, before their first line is written.
    Whatever follows the earlier epochs is deleted: it belongs to an epoch that is repeated, or that a writer did not
    finish. If an earlier epoch is missing, as in a trial begun by an older version, the file is deleted instead.
    """
    import numpy as np

    start = (epoch - 1) * epoch_bytes(len(right))
    disk = current_disk()
    if start and (not path.exists() or path.stat().st_size < start):
        disk.unlink(path)
        return
    with disk.open(path, "ab+") as file:
        if file.size > start:
            file.truncate(start)
        file.write(np.packbits(right).tobytes())
        file.sync()


def read_right(path: StrPath, epochs: int, images: int) -> "Right | None":
    """The first `epochs`: (epochs, images); None without a file, or if it holds fewer with this many images."""
    import numpy as np

    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    size = epoch_bytes(images)
    if len(content) < epochs * size:
        return None
    packed = np.frombuffer(content, np.uint8, epochs * size).reshape(epochs, size)
    bits = np.unpackbits(packed, axis=1).astype(np.bool_)
    return None if bits[:, images:].any() else bits[:, :images]


def agrees(right: "Right", accuracies: Sequence[float]) -> bool:
    """Does each epoch of right (epochs, images) have as many right images as its row's val_accuracy says?"""
    import numpy as np

    counts = np.rint(np.asarray(accuracies) * right.shape[1])
    return bool(np.array_equal(right.sum(axis=1), counts))
