"""Small folders of real JPEG files with their tables, and the YAML of a small sweep on them."""

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

WIDTH = 0.05  # of VGG-16's channels: a step takes milliseconds


@dataclass(frozen=True)
class Faces:
    """A folder of images and what its table says: `Smiling` can be seen in the picture, `Male` can't."""

    images: Path
    table: Path
    files: tuple[str, ...]
    smiling: tuple[int, ...]
    """-1 or 1 for each file."""
    male: tuple[int, ...]


def sha256_of(faces: Faces) -> tuple[str, ...]:
    """Digest of each file as it is now."""
    contents = ((faces.images / file).read_bytes() for file in faces.files)
    return tuple(hashlib.sha256(content).hexdigest() for content in contents)


def picture(smiling: int, number: int, side: int) -> Image.Image:
    """Noise on a grey ground; who smiles (1) is lighter in the lower half. Not square, as CelebA's are not."""
    draw = np.random.default_rng(number)
    ground = draw.uniform(70, 160, 3) + draw.normal(0, 12, (side * 11 // 9, side, 3))
    ground[len(ground) // 2 :] += 60 * smiling
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


@cache
def _jpeg(smiling: int, number: int, side: int) -> bytes:
    into = BytesIO()
    picture(smiling, number, side).save(into, "JPEG", quality=90)
    return into.getvalue()


def write_images(folder: Path, smiling: Sequence[int], side: int = 36) -> tuple[str, ...]:
    """000001.jpg, 000002.jpg, … in `folder`, which is made where it is not there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(f"{number:06d}.jpg" for number in range(1, len(smiling) + 1))
    for number, (file, smiles) in enumerate(zip(files, smiling, strict=True)):
        (folder / file).write_bytes(_jpeg(smiles, number, side))
    return files


def write_faces(root: Path, count: int, images: str = "faces", table: str = "faces.csv") -> Faces:
    """`count` images in `root`/`images` and a CSV with Smiling and Male as -1 and 1 in `root`/`table`."""
    smiling = tuple(1 if number % 2 else -1 for number in range(count))
    male = tuple(1 if number % 5 < 2 else -1 for number in range(count))
    files = write_images(root / images, smiling)
    frame = pd.DataFrame({"filename": files, "Smiling": smiling, "Male": male})
    frame.to_csv(root / table, index=False)
    return Faces(root / images, root / table, files, smiling, male)


def write_zip(folder: Path, archive: Path, inside: str = "") -> Path:
    """A zip of the files in `folder`, in a subfolder `inside` of it."""
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.iterdir()):
            opened.write(path, f"{inside}/{path.name}" if inside else path.name)
    return archive


def sweep_facts(
    faces: Faces, folder: Path, trial: dict[str, Any], **sections: Any
) -> dict[str, Any]:
    """What the YAML of a small, quick sweep named `run` holds."""
    return {
        "name": "run",
        "storage": str(folder),
        "data": {
            "images": str(faces.images),
            "table": str(faces.table),
            "target": "Smiling",
            "image_size": 32,
        },
        "model": {"weights": "none", "width": WIDTH},
        "trial": {"head": "linear"} | trial,
        "search": {"method": "grid"},
    } | sections
