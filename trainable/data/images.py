"""Images opened and decoded: training and validation for a trial, test for the final test alone."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainable.data.split import read_split
from trainable.views import View, look


def upright(image: Image.Image) -> Image.Image:
    """`image` as RGB, from grey, CMYK or palette too, and turned where it says that it lies on its side (EXIF)."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow's own conversion cuts 16 bits off at 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert("RGB")


def load_pixels(path: Path, size: int) -> Tensor:
    """The image at `path`, `upright`, resized bilinearly to a square: (3, `size`, `size`) uint8."""
    with Image.open(path) as image:
        colours = upright(image)
    array = np.array(colours.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@dataclass
class LabelledImages:
    """Images of one part with their labels, decoded when asked for and kept where memory allows."""

    folder: Path
    files: tuple[str, ...]
    labels: Tensor  # (images,) float32 of 0 and 1
    image_size: int
    cache_bytes: int = 0
    _kept: Tensor | None = field(init=False, default=None, repr=False)
    _known: list[bool] = field(init=False, default_factory=list, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.files), 3, self.image_size, self.image_size)
        if np.prod(shape) <= self.cache_bytes:
            self._kept = torch.empty(shape, dtype=torch.uint8)
            self._known = [False] * len(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def kept_bytes(self) -> int:
        """Memory set aside for decoded images."""
        return 0 if self._kept is None else self._kept.nbytes

    def pixels(self, index: int) -> Tensor:
        """Image `index`: (3, image_size, image_size) uint8."""
        path = self.folder / self.files[index]
        if self._kept is None:
            return load_pixels(path, self.image_size)
        if not self._known[index]:
            self._kept[index] = load_pixels(path, self.image_size)
            self._known[index] = True
        return self._kept[index]

    def batches(
        self, order: Sequence[int], batch_size: int, see: Callable[[str], View], workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions (batch,) and pixels (batch, 3, size, size) uint8 in `order`, decoded ahead by `workers` threads.

        Pillow and torch release the interpreter's lock where they work, so threads decode side by side.
        """

        def assemble(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
            views = [look(self.pixels(index), see(self.files[index])) for index in positions]
            return torch.tensor(positions), torch.stack(views)

        chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            ahead = deque(pool.submit(assemble, chunk) for chunk in islice(chunks, 2 * workers))
            try:
                while ahead:
                    batch = ahead.popleft().result()
                    ahead.extend(pool.submit(assemble, chunk) for chunk in islice(chunks, 1))
                    yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class TrainingData:
    """What a trial may see."""

    training: LabelledImages
    validation: LabelledImages


def open_training_data(
    split: Path, images: Path, image_size: int, cache_bytes: int = 0
) -> TrainingData:
    """Training and validation images of a split.parquet; the test part is not read."""
    rows = read_split(split, ("train", "validation"))
    training = _open(rows[rows["part"] == "train"], images, image_size, cache_bytes)
    left = cache_bytes - training.kept_bytes
    validation = _open(rows[rows["part"] == "validation"], images, image_size, left)
    return TrainingData(training, validation)


def open_test_data(split: Path, images: Path, image_size: int) -> LabelledImages:
    """The test images of a split.parquet. Only the final test calls this, once a sweep."""
    return _open(read_split(split, ("test",)), images, image_size, 0)


def _open(rows: pd.DataFrame, images: Path, image_size: int, cache_bytes: int) -> LabelledImages:
    return LabelledImages(
        folder=images,
        files=tuple(rows["file"]),
        labels=torch.tensor(rows["label"].to_numpy(), dtype=torch.float32),
        image_size=image_size,
        cache_bytes=cache_bytes,
    )
