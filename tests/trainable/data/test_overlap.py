"""Pictures and persons in two parts of a split: found where copies were planted, and nowhere else."""

import io
import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sweep.request.config import check_config
from sweep.request.prepare import prepare
from tests.support.faces import Faces, sweep_facts, write_faces
from tests.support.project import ROOT
from trainable.data import overlap
from trainable.data.inspection import inspect_images
from trainable.data.overlap import (
    NEAR_BITS,
    Overlap,
    find_overlap,
    near_pairs,
    words,
)

DEMO = ROOT / "examples" / "demo"


def looked_at(folder: Path, split: pd.DataFrame) -> Overlap:
    found = inspect_images(folder, list(split["file"]), folder / "memory")
    return find_overlap(split, found.column("pixels"), found.column("perceptual"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty of the demo's faces."""
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    command = [sys.executable, str(DEMO / "faces.py"), "30", str(folder), "--jobs", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "images"


@pytest.fixture
def parted(drawn: Path, tmp_path: Path) -> tuple[Faces, pd.DataFrame]:
    faces = write_faces(tmp_path, 30)
    for file, path in zip(faces.files, sorted(drawn.iterdir()), strict=True):
        (faces.images / file).write_bytes(path.read_bytes())
    parts = ["train"] * 20 + ["validation"] * 5 + ["test"] * 5
    return faces, pd.DataFrame({"file": faces.files, "part": parts})


def test_different_pictures_overlap_nowhere(parted: tuple[Faces, pd.DataFrame]) -> None:
    faces, split = parted
    assert looked_at(faces.images, split) == Overlap(0, 0, (), None, None)
    assert list(looked_at(faces.images, split).said()) == []


def test_copies_are_found_by_their_pixels_and_by_what_they_look_like(
    parted: tuple[Faces, pd.DataFrame],
) -> None:
    """Wrapped anew without loss; saved again, smaller; and one copy within a part, which does no harm to the test."""
    faces, split = parted
    (first, second, third), (wrapped, saved) = faces.files[:3], faces.files[28:]
    with Image.open(faces.images / first) as image:
        image.save(faces.images / wrapped, "PNG")
    with Image.open(faces.images / second) as image:
        image.resize((89, 109)).save(faces.images / saved, quality=60)
    (faces.images / faces.files[5]).write_bytes((faces.images / third).read_bytes())
    found = looked_at(faces.images, split)
    assert (found.same, found.near) == (2, 1)
    assert set(found.pairs) == {
        (f"train/{first}", f"test/{wrapped}"),
        (f"train/{second}", f"test/{saved}"),
    }
    across, inside = found.said()
    assert across.startswith("2 pairs of the same or nearly the same image are in two parts")
    assert f"train/{first} and test/{wrapped}" in across
    assert inside.startswith("1 images are the same")


def test_persons_in_two_parts_are_counted_with_their_test_images() -> None:
    split = pd.DataFrame(
        {
            "file": list("abcdefg"),
            "part": ["train", "train", "validation", "test", "test", "test", "test"],
            "identity": [1, 2, 2, 1, 1, 3, None],
        }
    )
    draw = np.random.default_rng(0)
    far = {file: draw.bytes(32).hex() for file in "abcdefg"}
    found = find_overlap(split, {file: file for file in "abcdefg"}, far)
    assert (found.persons, found.test_images_of_known_persons) == (2, 2)
    (said,) = [line for line in found.said() if "people" in line]
    assert said.startswith(
        "2 people have images in two parts of the split, 2 test images among them"
    )


@given(st.lists(st.integers(0, 2**20 - 1), min_size=0, max_size=40), st.integers(0, 6))
def test_near_pairs_are_those_that_counting_bits_finds(numbers: list[int], bits: int) -> None:
    hashes = words([f"{number:064x}" for number in numbers])
    expected = [
        (i, j)
        for (i, one), (j, other) in itertools.combinations(enumerate(numbers), 2)
        if (one ^ other).bit_count() <= bits
    ]
    assert sorted(near_pairs(hashes, bits)) == expected


@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_copies_at_the_very_limit_are_told_from_those_beyond_it(
    data: st.DataObject, seed: int
) -> None:
    """Some hundred hashes of 256 bits, of which some bits may never change; copies 14 to 18 bits away, and copies of
    copies."""
    draw = np.random.default_rng(seed)
    bits = draw.random((100, 256)) < 0.5
    bits[:, : data.draw(st.integers(0, 250), "bits that never change")] = True
    for copy in range(1, data.draw(st.integers(1, 99), "copies")):
        bits[copy] = bits[draw.integers(0, copy)]
        bits[copy, draw.choice(256, draw.integers(14, 19), replace=False)] ^= True
    numbers = [int("".join(map(str, row)), 2) for row in bits.astype(int)]
    expected = {
        (i, j)
        for (i, one), (j, other) in itertools.combinations(enumerate(numbers), 2)
        if (one ^ other).bit_count() <= NEAR_BITS
    }
    found = list(near_pairs(words([f"{number:064x}" for number in numbers])))
    assert len(found) == len(set(found))
    assert set(found) == expected


def bits_apart(hashes: np.ndarray) -> np.ndarray:
    """Of every two rows, by arithmetic on their bits and without any key."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1).astype(np.float32)
    ones = bits.sum(axis=1)
    apart: np.ndarray = ones[:, None] + ones - 2 * bits @ bits.T
    return apart


@pytest.mark.parametrize("images", [10, 11, 40, 41, 97])
def test_many_hashes_of_one_key_are_compared_tile_by_tile_and_none_is_missed(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as a small bucket takes, as a tile, as three tiles, and one more; half of all have another key."""
    monkeypatch.setattr(overlap, "SMALL", 10)
    monkeypatch.setattr(overlap, "TILE", 40)
    draw = np.random.default_rng(images)
    bits = draw.random((2 * images, 256)) < 0.5
    bits[:images, :200] = True  # so that few of the groups of bits tell these apart
    for copy in range(1, images, 2):
        bits[copy] = bits[draw.integers(0, copy)]
        bits[copy, 200 + draw.choice(56, copy % 4, replace=False)] ^= True
    draw.shuffle(bits)
    hashes = words([row.tobytes().hex() for row in np.packbits(bits, axis=1)])
    apart = np.triu(bits_apart(hashes) + 1, 1)  # 0 where there is no pair
    for most in (1, NEAR_BITS):
        expected = np.argwhere((apart > 0) & (apart <= most + 1)).tolist()
        assert len(expected) > 1
        assert sorted(map(list, near_pairs(hashes, most))) == expected


@pytest.mark.parametrize("constant_bits", [0, 200, 240])
def test_memory_grows_with_the_hashes_not_with_their_pairs(constant_bits: int) -> None:
    """6,000 that mostly agree: 18 million pairs, of which a table would take 144 MB in bytes by eight."""
    draw = np.random.default_rng(0)
    bits = (draw.random((6_000, 256)) < 0.5).astype(np.uint8)
    bits[:, :constant_bits] = 1
    bits[5_000] = bits[17]
    hashes = words([row.tobytes().hex() for row in np.packbits(bits, axis=1)])
    tracemalloc.start()
    found = set(near_pairs(hashes, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (17, 5_000) in found
    assert peak < 50e6


def test_near_pairs_are_found_across_blocks() -> None:
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**63, (1_500, 4), dtype=np.uint64)
    hashes[1_400] = hashes[3]
    hashes[1_400, 2] ^= np.uint64(0b1011)
    assert list(near_pairs(hashes)) == [(3, 1_400)]


def test_saving_again_moves_fewer_bits_than_another_picture(
    parted: tuple[Faces, pd.DataFrame],
) -> None:
    faces, _ = parted
    originals, again = [], []
    for file in faces.files:
        with Image.open(faces.images / file) as image:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=75)
            originals.append(imagehash.phash(image, hash_size=16))
            again.append(imagehash.phash(Image.open(buffer), hash_size=16))
    moved = [one - other for one, other in zip(originals, again, strict=True)]
    apart = [one - other for one, other in itertools.combinations(originals, 2)]
    assert max(moved) <= NEAR_BITS < min(apart)


def test_what_overlaps_is_said_before_the_start(tmp_path: Path, own_store: Path) -> None:
    faces = write_faces(tmp_path, 40)
    for file in faces.files[2::2]:
        (faces.images / file).write_bytes((faces.images / faces.files[0]).read_bytes())
    found = prepare(check_config(sweep_facts(faces, tmp_path, {"strategy": "full"}), {}, "test"))
    assert found.data.overlap.same == 19
    assert any("are in two parts of the split" in warning for warning in found.warnings)
