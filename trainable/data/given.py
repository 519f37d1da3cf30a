"""Images that the user gives and no split names: files, folders, zips, and images in memory.

They have no labels, and only their SHA-256 shows whether they belong to a run; callers must check that.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainable.data.archive import DAMAGE, damaged
from trainable.data.decoding.decoder import Pixels, decode, is_content, squared
from trainable.data.tables.finding import files_below, is_image
from trainable.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES: Final = 2**29
"""Of a file in a zip, so that none fills the memory: as many as the largest image that Pillow opens takes in RGB."""


@dataclass(frozen=True)
class GivenImage:
    """An image by its name; it is read and decoded when asked for."""

    name: str
    """For a file, its path; for a file in a zip, the zip's path and its own; otherwise its place, as in `image 3`."""
    content: Callable[[], bytes] | None
    """The content of its file. None: there is no file, or it is unknown."""
    picture: Image.Image | None = None
    """The decoded image, if it is already decoded."""

    def digest(self) -> str | None:
        """SHA-256 of the file's content; None if there is no file.

        Raises:
            RequestError: it can't be read.
        """
        return None if self.content is None else hashlib.sha256(self._read()).hexdigest()

    def pixels(self, size: int, sha256: str | None) -> Pixels:
        """The image by `decode`, if it still has the digest `sha256`: (3, `size`, `size`) uint8.

        Raises:
            RequestError: it can't be read, has changed, or is not an image.
        """
        try:
            if self.picture is not None:
                return squared(self.picture, size)
            content = self._read()
            if sha256 is not None and not is_content(content, sha256):
                raise RequestError(
                    f"images must not change while they are read, but {self.name} has changed"
                )
            return decode(content, size)
        except RequestError:
            raise
        except Exception as error:  # Pillow raises many kinds for a damaged image
            said = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
            raise RequestError(
                f"IMAGES must be images, but {self.name} can't be decoded: {said}; leave it out"
            ) from None

    def _read(self) -> bytes:
        assert self.content is not None
        try:
            return self.content()
        except (OSError, NotImplementedError) as error:  # the latter: compressed in an unknown way
            said = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise RequestError(f"{self.name} must be readable, but: {said}") from None
        except DAMAGE as error:
            raise RequestError(f"{self.name} must be readable, but {damaged(error)}") from None


def given_images(images: Any) -> list[GivenImage]:
    """The images in a path (a file, a folder or a zip of images), a Pillow image, a tensor (3, height, width) or
    (n, 3, height, width) of uint8, or several of these in order.

    Raises:
        RequestError: something is none of these, does not exist, or holds no image.
    """
    found = list(_given(images, [0]))
    if not found:
        raise RequestError("there must be at least one image, but there is none")
    return found


def _given(images: Any, counted: list[int]) -> Iterator[GivenImage]:
    """`counted` holds the number of images so far."""
    if isinstance(images, str | Path):
        found = _at(Path(images))
    elif isinstance(images, Image.Image):
        found = [_opened(images, counted[0] + 1)]
    elif hasattr(images, "dim") and hasattr(images, "dtype"):
        found = _of_tensor(images, counted[0])
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict | np.ndarray):
        for each in images:
            yield from _given(each, counted)
        return
    else:
        raise RequestError(
            "images must be paths, Pillow images or tensors of uint8 (3, height, width), but one is "
            f"{type(images).__name__}"
        )
    counted[0] += len(found)
    yield from found


def _at(path: Path) -> Sequence[GivenImage]:
    if path.is_dir():
        names = sorted(name for name in files_below(path) if is_image(name))
        if not names:
            raise RequestError(f"IMAGES must hold images, but the folder {path} has none")
        return [_file(path / name) for name in names]
    if not path.is_file():
        raise RequestError(f"IMAGES must be image files, folders or zips, but there is no {path}")
    return _in_zip(path) if zipfile.is_zipfile(path) else [_file(path)]


def _file(path: Path) -> GivenImage:
    return GivenImage(str(path), path.read_bytes)


def _in_zip(path: Path) -> list[GivenImage]:
    """Images are read from the zip; nothing is extracted."""
    try:
        archive = zipfile.ZipFile(path)
        members = sorted(
            (m for m in archive.infolist() if not m.is_dir() and _is_shown_image(m.filename)),
            key=lambda member: member.filename,
        )
    except (OSError, NotImplementedError, *DAMAGE) as error:
        raise RequestError(f"{path} must be a whole zip, but {damaged(error)}") from None
    if not members:
        raise RequestError(f"IMAGES must hold images, but the zip {path} has none")
    for member in members:
        if member.flag_bits & 0x1:
            raise RequestError(
                f"an image in a zip must not be encrypted, but {path}/{member.filename} is; extract it yourself"
            )
        if member.file_size > MOST_BYTES:
            raise RequestError(
                f"an image in a zip must have at most {MOST_BYTES:,} bytes, but {path}/{member.filename} has "
                f"{member.file_size:,}; leave it out"
            )

    def reader(member: zipfile.ZipInfo) -> Callable[[], bytes]:
        return lambda: archive.read(member)

    return [GivenImage(f"{path}/{member.filename}", reader(member)) for member in members]


def _is_shown_image(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return is_image(name) and not any(p.startswith(".") or p == "__MACOSX" for p in parts)


def _opened(image: Image.Image, place: int) -> GivenImage:
    """With the file that it was opened from, if Pillow knows it."""
    path = getattr(image, "filename", "")
    if isinstance(path, str | Path) and str(path) and Path(path).is_file():
        return GivenImage(str(path), Path(path).read_bytes, image)
    return GivenImage(f"image {place}", None, image)


def _of_tensor(images: "Tensor", before: int) -> list[GivenImage]:
    import torch

    several = images[None] if images.dim() == 3 else images
    if images.dtype != torch.uint8 or several.dim() != 4 or several.shape[1] != 3:
        raise RequestError(
            "a tensor of images must be uint8 of shape (3, height, width) or (n, 3, height, width), RGB in 0 to 255, "
            f"but one is {str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
        )
    pictures = several.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return [
        GivenImage(f"image {before + number}", None, Image.fromarray(each))
        for number, each in enumerate(pictures, start=1)
    ]
