"""How fast are images inspected, decoded, and compared: by one thread, by threads, by processes?

Draws faces in parallel (examples/demo/faces.py), and times each way in turn, in several rounds. Inspecting counts from
a cold start, as in a sweep; decoding counts from when the processes answer, which is reported separately. Prints JSON:
every round's seconds, median, and images or hashes per second.

    python benchmarks/decoding.py [--images 3000] [--processes N] [--rounds 3] [--out decoding.json]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from trainable.data import LabelledImages
from trainable.data import inspection as inspecting
from trainable.data.images import TrainingData
from trainable.data.inspection import inspect_images
from trainable.data.overlap import near_pairs
from trainable.hardware.cpus import usable_cpus
from trainable.records.files import sha256_of

DEMO = Path(__file__).parents[1] / "examples" / "demo"
SIZE, BATCH = 224, 128


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def look(images: LabelledImages, cpus: int, by_processes: bool) -> float:
    """Inspect every image, with nothing remembered."""
    inspecting.usable_cpus = lambda: cpus  # type: ignore[attr-defined]
    inspecting.WORTH_PROCESSES = 0 if by_processes else sys.maxsize  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as memory:
        return seconds(lambda: inspect_images(images.folder, images.files, Path(memory)))


def decode(images: LabelledImages, threads: int) -> float:
    """Decode every image in batches, each freed at once."""
    return seconds(lambda: all(images.pixel_batches(range(len(images)), BATCH, threads)))


def decode_by_processes(images: LabelledImages, count: int, store: Path) -> tuple[float, float]:
    """Seconds until the processes answer, and then for all images."""
    part = TrainingData(images, images)
    began = time.perf_counter()
    with part.begin_decoders(count, store):
        next(iter(images.pixel_batches(range(count * 32), count * 32, 1)))
        start = time.perf_counter() - began
        taken = decode(images, 2)
    images.decoders = None
    return start, taken


def every_near_pair(some: "np.ndarray[Any, np.dtype[np.uint64]]") -> list[Any]:
    return list(near_pairs(some))


def hashes(count: int) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Random hashes, one in a hundred of them 0 to 16 bits away from another."""
    draw = np.random.default_rng(0)
    bits = np.unpackbits(draw.integers(0, 256, (count, 32), dtype=np.uint8), axis=1)
    for copy in range(count - count // 100, count):
        bits[copy] = bits[draw.integers(count // 2)]
        bits[copy, draw.choice(256, draw.integers(17), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--processes", type=int, default=usable_cpus())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    count = arguments.processes
    found: dict[str, list[float]] = {}

    def note(what: str, taken: float) -> None:
        found.setdefault(what, []).append(round(taken, 3))
        print(f"{what}: {taken:.2f} s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        faces = Path(folder) / "faces"
        command = [sys.executable, str(DEMO / "faces.py"), str(arguments.images), str(faces)]
        subprocess.run([*command, "--jobs", str(count)], check=True, stdout=subprocess.DEVNULL)
        files = tuple(sorted(path.name for path in (faces / "images").iterdir()))
        digests = tuple(sha256_of(faces / "images" / file) for file in files)
        labels = torch.zeros(len(files))
        images = LabelledImages(faces / "images", files, labels, SIZE, digests)
        for _ in range(arguments.rounds):
            note("look, 1 thread", look(images, 1, False))
            note(f"look, {count} threads", look(images, count, False))
            note(f"look, {count} processes", look(images, count, True))
            note("decode, 1 thread", decode(images, 1))
            note(f"decode, {count} threads", decode(images, count))
            start, taken = decode_by_processes(images, count, Path(folder))
            note(f"{count} processes until all may answer", start)
            note(f"decode, {count} processes", taken)
    for number in (30_000, 200_000):
        some = hashes(number)
        for _ in range(arguments.rounds):
            note(f"near pairs of {number:,}", seconds(partial(every_near_pair, some)))
    result = {
        "images": arguments.images,
        "side": SIZE,
        "cpus": usable_cpus(),
        "machine": platform.processor() or platform.machine(),
        "seconds": {
            what: {"n": len(each), "median": median(each), "all": each}
            for what, each in found.items()
        },
        "images_per_second": {
            what: round(arguments.images / median(each))
            for what, each in found.items()
            if what.startswith(("look", "decode"))
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
