"""A model's most confident mistakes, with thumbnails of them.

Nothing here opens a part of the split by itself: the caller passes the opened images.
"""

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image

from analysis.judgement.predicted import rights
from trainable.data import LabelledImages, decoded_pixels
from trainable.errors import ChangedInput, RequestError
from trainable.records.run_folder import RunFolder

SHOWN: Final = 12  # by eye
SIDE: Final = 112
"""Pixels: thumbnails are square, as the model sees the images. 7 rem on the page (page.css)."""
QUALITY: Final = 80  # of JPEG: 2 to 5 KB a picture; by eye


def most_confident(predictions: pd.DataFrame) -> pd.DataFrame:
    """Up to SHOWN rows of `predictions` (file, label, logit) that are wrong at threshold 0.5, most confident first."""
    wrong = predictions[~rights(predictions)]
    order = wrong.assign(sure=wrong["logit"].abs()).sort_values(
        ["sure", "file"], ascending=[False, True]
    )
    return order.drop(columns="sure").head(SHOWN).reset_index(drop=True)


def thumbnail(path: Path, sha256: str) -> bytes:
    """A JPEG of the image at `path`, which had this digest when the run began.

    Raises:
        OSError: it can't be read or decoded.
        ChangedInput: it has changed since the run began.
    """
    pixels = decoded_pixels(path, SIDE, sha256)
    content = BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def thumbnails_still_there(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """Thumbnails by file, of the files in `digests` that are still in the image folder, unchanged."""
    found = {}
    for file, sha256 in digests.items():
        try:
            found[file] = thumbnail(folder / file, sha256)
        except (OSError, ChangedInput, ValueError):
            continue
    return found


def as_parquet(mistakes: pd.DataFrame, images: LabelledImages) -> bytes:
    """test_mistakes.parquet: file, label, logit, jpeg of each row of `mistakes`.

    Raises:
        OSError, ChangedInput: as `thumbnail`.
    """
    content, digests = BytesIO(), dict(zip(images.files, images.digests, strict=True))
    jpegs = pd.Series(
        [thumbnail(images.folder / file, digests[file]) for file in mistakes["file"]], dtype=object
    )
    mistakes.assign(jpeg=jpegs).to_parquet(content, index=False)
    return content.getvalue()


def read_test_mistakes(run: RunFolder, sha256: str) -> dict[str, bytes]:
    """The thumbnails, by file, that the opening of the test set wrote with this digest.

    Raises:
        RequestError: the file is missing or was changed.
    """
    content = read_checked(run.test_mistakes.name, run, sha256)
    frame = pd.read_parquet(BytesIO(content))
    return dict(zip(frame["file"], frame["jpeg"], strict=True))


def read_checked(name: str, run: RunFolder, sha256: str) -> bytes:
    """The content of a file beside test.json, if it is the one that the newest opening wrote.

    Raises:
        RequestError: it is missing or was changed.
    """
    path = run.path / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{path} must be as the newest opening of the test set wrote it, but it can't be read: {error.strerror}"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise RequestError(
            f"{path} must have the SHA-256 {sha256} that the newest opening of the test set recorded, "
            f"but it has {digest}: the file was changed"
        )
    return content
