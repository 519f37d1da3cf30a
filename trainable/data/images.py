"""Images opened and decoded: training and validation for a trial, test for the final test alone."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainable.config import ChangedInput
from trainable.data.split import read_split
from trainable.views import ORIGINAL, View, look


def upright(image: Image.Image) -> Image.Image:
    """`image` as RGB, from grey, CMYK or palette too, and turned where it says that it lies on its side (EXIF)."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow's own conversion cuts 16 bits off at 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert("RGB")


def load_pixels(path: Path, size: int, sha256: str | None = None) -> Tensor:
    """The image at `path`, `upright`, resized bilinearly to a square: (3, `size`, `size`) uint8.

    Raises:
        OSError: it can't be read or decoded.
        ChangedInput: its content has not the digest `sha256`, where one is given.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ChangedInput(
            f"every image must stay as it was when the run began, but {path} has changed; "
            "put the old one back, or begin another run"
        )
    try:
        with Image.open(BytesIO(content)) as image:
            colours = upright(image)
    except (OSError, SyntaxError) as error:  # Pillow raises both for a damaged image
        raise OSError(f"{path} can't be decoded: {error}") from error
    array = np.array(colours.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@dataclass
class LabelledImages:
    """Images of one part with their labels, decoded when asked for."""

    folder: Path
    files: tuple[str, ...]
    labels: Tensor  # (images,) float32 of 0 and 1
    image_size: int
    digests: tuple[str, ...]
    """SHA-256 of each file when the run began; a file that has changed since is refused."""
    kept: Callable[[int], np.ndarray[Any, Any]] | None = None
    """Gives a decoded image that is kept elsewhere (trainable.shared)."""

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, index: int) -> Tensor:
        """Image `index`: (3, image_size, image_size) uint8."""
        if self.kept is not None:
            return torch.from_numpy(self.kept(index).copy())
        return load_pixels(self.folder / self.files[index], self.image_size, self.digests[index])

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

    def pixel_batches(
        self, order: Sequence[int], batch_size: int, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`batches` of the original view."""
        return self.batches(order, batch_size, lambda file: ORIGINAL, workers)


@dataclass(frozen=True)
class TrainingData:
    """What a trial may see."""

    training: LabelledImages
    validation: LabelledImages


def open_training_data(split: Path, images: Path, image_size: int) -> TrainingData:
    """Training and validation images of a split.parquet; the test part is not read."""
    rows = read_split(split, ("train", "validation"))
    return TrainingData(
        training=_open(rows[rows["part"] == "train"], images, image_size),
        validation=_open(rows[rows["part"] == "validation"], images, image_size),
    )


def open_test_data(split: Path, images: Path, image_size: int) -> LabelledImages:
    """The test images of a split.parquet. Only the final test calls this, once a sweep."""
    return _open(read_split(split, ("test",)), images, image_size)


def _open(rows: pd.DataFrame, images: Path, image_size: int) -> LabelledImages:
    return LabelledImages(
        folder=images,
        files=tuple(rows["file"]),
        labels=torch.tensor(rows["label"].to_numpy(), dtype=torch.float32),
        image_size=image_size,
        digests=tuple(rows["sha256"]),
    )
