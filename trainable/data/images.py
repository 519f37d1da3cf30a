"""Opens and decodes images: training and validation for a trial, test only for the final test.

torch is imported where images become tensors: commands that read tables, splits or a thumbnail start without it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainable.data.decoding.decoder import Pixels, decode, is_content
from trainable.data.decoding.pool import Decodable, Decoders
from trainable.data.split import read_split
from trainable.errors import ChangedInput

if TYPE_CHECKING:
    from torch import Tensor

    from trainable.data.views import View


def load_pixels(path: Path, size: int, sha256: str | None = None) -> "Tensor":
    """`decoded_pixels` as a tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(decoded_pixels(path, size, sha256)))


def decoded_pixels(path: Path, size: int, sha256: str | None = None) -> Pixels:
    """The image at `path`, `upright`, resized bilinearly to a square: (3, `size`, `size`) uint8.

    Raises:
        OSError: it can't be read or decoded.
        ChangedInput: its content does not have the digest `sha256`, if one is given.
    """
    content = path.read_bytes()
    if sha256 is not None and not is_content(content, sha256):
        raise ChangedInput(
            f"every image must stay as it was when the run began, but {path} has changed; "
            "put the old one back, or start another run"
        )
    try:
        return decode(content, size)
    except (OSError, SyntaxError) as error:  # Pillow raises both for a damaged image
        raise OSError(f"{path} can't be decoded: {error}") from error


@dataclass
class LabelledImages:
    """Images of one part with their labels, decoded when asked for."""

    folder: Path
    files: tuple[str, ...]
    labels: "Tensor"  # (images,) float32 of 0 and 1
    image_size: int
    digests: tuple[str, ...]
    """SHA-256 of each file from when the run began; a file that has changed since is refused."""
    kept: Callable[[int], np.ndarray[Any, Any]] | None = None
    """Returns a decoded image that is kept elsewhere (trainable.frozen.shared)."""
    decoders: Decoders | None = None
    """Processes that decode these images; without them, threads do."""

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, index: int) -> "Tensor":
        """Image `index`: (3, image_size, image_size) uint8."""
        import torch

        if self.kept is not None:
            return torch.from_numpy(self.kept(index).copy())
        return load_pixels(self.folder / self.files[index], self.image_size, self.digests[index])

    def pixel_batches(
        self, order: Sequence[int], batch_size: int, workers: int
    ) -> "Iterator[tuple[Tensor, Tensor]]":
        """`batches` with the original view."""
        from trainable.data.views import ORIGINAL

        return self.batches(order, batch_size, lambda file: ORIGINAL, workers)

    def batches(
        self, order: Sequence[int], batch_size: int, see: "Callable[[str], View]", workers: int
    ) -> "Iterator[tuple[Tensor, Tensor]]":
        """Positions (batch,) int64 and pixels (batch, 3, size, size) uint8 in `order`, decoded ahead.

        `decoders` decode, or `workers` threads; threads make the views. Pillow and torch release the interpreter's
        lock while they work, so a few threads run in parallel, but not sixteen: they wait for it in between.
        """
        import torch

        from trainable.data.views import ORIGINAL, look

        def assemble(
            positions: Sequence[int], pixels: "Callable[[], Tensor]"
        ) -> "tuple[Tensor, Tensor]":
            views, batch = [see(self.files[index]) for index in positions], pixels()
            if any(each != ORIGINAL for each in views):
                batch = torch.stack(list(map(look, batch, views)))
            return torch.tensor(positions), batch

        decoders = self._processes()
        window = max(2 * workers, decoders.batches_ahead(batch_size) if decoders else 0)
        chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            begun = (pool.submit(assemble, chunk, self._decode(chunk)) for chunk in chunks)
            ahead = deque(islice(begun, window))
            try:
                while ahead:
                    batch = ahead.popleft().result()
                    ahead.extend(islice(begun, 1))
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _processes(self) -> Decoders | None:
        """The processes that decode, if any; none if the images are already decoded."""
        usable = self.kept is None and self.decoders is not None and self.decoders.running
        return self.decoders if usable else None

    def _decode(self, positions: Sequence[int]) -> "Callable[[], Tensor]":
        """Start to decode if processes do it; the returned function gives (images, 3, size, size) uint8."""
        import torch

        decoders = self._processes()
        if decoders is None:
            return lambda: torch.stack([self.pixels(index) for index in positions])
        batch = torch.empty(
            (len(positions), 3, self.image_size, self.image_size), dtype=torch.uint8
        )
        begun = decoders.pixels([self.files[index] for index in positions], batch.numpy())

        def finish() -> "Tensor":
            for place in begun.undecoded():
                batch[place] = self.pixels(positions[place])  # which raises what is wrong
            return batch

        return finish


@dataclass(frozen=True)
class TrainingData:
    """The data that a trial may see."""

    training: LabelledImages
    validation: LabelledImages

    def begin_decoders(self, count: int, store: Path) -> Decoders:
        """Let `count` processes decode these images, and no others; the caller closes them."""
        both = self.training, self.validation
        digests = {
            file: sha for part in both for file, sha in zip(part.files, part.digests, strict=True)
        }
        only = Decodable(self.training.folder, digests, self.training.image_size)
        decoders = Decoders(count, store, only)
        self.training.decoders = self.validation.decoders = decoders
        return decoders


def open_training_data(split: Path, images: Path, image_size: int) -> TrainingData:
    """Training and validation images of a split.parquet; the test part is not read."""
    return training_data(read_split(split, ("train", "validation")), images, image_size)


def training_data(rows: pd.DataFrame, images: Path, image_size: int) -> TrainingData:
    """The same of a split's `rows` (file, label, part, sha256), of whose test part nothing is taken."""
    return TrainingData(
        training=_open(rows[rows["part"] == "train"], images, image_size),
        validation=_open(rows[rows["part"] == "validation"], images, image_size),
    )


def open_test_data(split: Path, images: Path, image_size: int) -> LabelledImages:
    """The test images of a split.parquet. Only the final test calls this, once per sweep."""
    return _open(read_split(split, ("test",)), images, image_size)


def _open(rows: pd.DataFrame, images: Path, image_size: int) -> LabelledImages:
    import torch

    return LabelledImages(
        folder=images,
        files=tuple(rows["file"]),
        labels=torch.tensor(rows["label"].to_numpy(), dtype=torch.float32),
        image_size=image_size,
        digests=tuple(rows["sha256"]),
    )
