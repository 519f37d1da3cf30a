"""The only code that decodes image files to pixels, whether in this process or in one of its own.

As a program it answers requests, one JSON line each, until its input ends, so it ends with the process that started it,
however that one died. It is started by its path and imports nothing of ours, so it is ready within 0.3 s and takes
30 MB, where importing trainable.data takes 3.3 s and 900 MB (docs/log.md). `trainable.data.decoding.pool` uses it.

    {"folder": f, "look": [file, …]}                               → {"rows": [findings, …]}
    {"folder": f, "pixels": [[file, sha256], …], "size": s, "at": byte} → {"undecoded": [place, …]}
"""

import hashlib
import json
import mmap
import os
import signal
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Findings = tuple[str, int, int, str, str, str]
"""sha256, width, height, problem, pixels, perceptual: as in `trainable.data.inspection.COLUMNS`."""


def upright(image: Image.Image) -> Image.Image:
    """`image` as RGB, converted from grey, CMYK or palette, and rotated as its EXIF orientation says."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):  # Pillow's own conversion clips 16 bits at 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    return turned.convert("RGB")


def decode(content: bytes, size: int) -> Pixels:
    """The image in a file's `content`, `upright`, resized bilinearly to a square: (3, `size`, `size`), channels last
    in memory.

    Raises:
        OSError, SyntaxError: Pillow raises both for a damaged image.
    """
    with Image.open(BytesIO(content)) as image:
        return squared(image, size)


def squared(image: Image.Image, size: int) -> Pixels:
    """As `decode`, for an opened image."""
    square = upright(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(square).transpose(2, 0, 1)


def is_content(content: bytes, sha256: str) -> bool:
    """Does `content` have this digest?"""
    return hashlib.sha256(content).hexdigest() == sha256


def findings(path: Path) -> Findings:
    """What an inspection needs to know about a file; it is read once, and decoded as for training."""
    digest = ""

    def bad(problem: str) -> Findings:
        return digest, 0, 0, problem, "", ""

    try:
        content = path.read_bytes()
    except OSError as error:
        return bad(f"can't be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return bad("is empty")
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            colours = upright(image)
    except UnidentifiedImageError:  # its message names a buffer in memory
        return bad("is not a readable image: its format is unknown")
    except Exception as error:  # Pillow raises many kinds for a damaged file
        return bad(f"is not a readable image: {error}")
    pixels = hashlib.sha256(f"{colours.size}".encode() + colours.tobytes()).hexdigest()
    perceptual = str(imagehash.phash(colours, hash_size=16))
    return digest, width, height, "", pixels, perceptual


def _put(path: Path, sha256: str, slot: Pixels) -> bool:
    """Decode into `slot`; False if that fails for any reason: the caller then decodes it and reports the error."""
    try:
        content = path.read_bytes()
        if not is_content(content, sha256):
            return False
        slot[:] = decode(content, slot.shape[-1])
    except Exception:
        return False
    return True


def answer(request: dict[str, Any], slots: mmap.mmap | None) -> dict[str, Any]:
    """The answer to a request; pixels are written to `slots`."""
    folder = Path(request["folder"])
    if "look" in request:
        return {"rows": [findings(folder / file) for file in request["look"]]}
    assert slots is not None
    size, images = request["size"], request["pixels"]
    shape = len(images), 3, size, size
    batch = np.frombuffer(slots, np.uint8, int(np.prod(shape)), request["at"]).reshape(shape)
    done = [
        _put(folder / file, sha256, slot)
        for (file, sha256), slot in zip(images, batch, strict=True)
    ]
    return {"undecoded": [place for place, fine in enumerate(done) if not fine]}


def main() -> None:
    """Answer until the input ends; `sys.argv[1]`, if given, is the handle of the file that holds pixels."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides
    slots = mmap.mmap(int(sys.argv[1]), 0) if len(sys.argv) > 1 else None
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # what a library prints is not an answer
        for line in sys.stdin.buffer:
            try:
                answers.write(json.dumps(answer(json.loads(line), slots)).encode() + b"\n")
            except BrokenPipeError:  # nothing reads the answers any more
                return


if __name__ == "__main__":
    main()
