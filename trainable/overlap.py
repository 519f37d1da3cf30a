"""Pictures and persons that stand in more than one part of a split: what makes a test accuracy too good.

A picture is the same where its pixels are (a renamed or re-wrapped file), near where its perceptual hash is: smaller,
or saved again with another quality. Mirrored and cropped copies are not found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

HASH_WORDS: Final = 4  # of 64 bits: imagehash's pHash with 16 × 16 bits
NEAR_BITS: Final = 16
"""Of 256: two hashes that differ in no more are of one picture (docs/log.md)."""
BLOCK: Final = 512
SHOWN: Final = 3

Pair = tuple[str, str]


@dataclass(frozen=True)
class Overlap:
    """What stands in two parts of a split."""

    same: int
    """Images with the pixels of an earlier one, anywhere."""
    near: int
    """Pairs of other images with nearly the same perceptual hash, anywhere."""
    pairs: tuple[Pair, ...]
    """Same or near pictures in two parts, each named as part/file."""
    persons: int | None
    """Persons with images in two parts or more; None where persons are not known."""
    test_images_of_known_persons: int | None
    """Test images of persons that have images in another part."""

    def said(self) -> Iterator[str]:
        """What a person must know before the start, a line each."""
        if self.pairs:
            shown = "; ".join(f"{one} and {other}" for one, other in self.pairs[:SHOWN])
            yield (
                f"{len(self.pairs):,} pairs of the same or nearly the same picture stand in two parts of the split: "
                f"{shown}{'; …' if len(self.pairs) > SHOWN else ''}; remove one of each"
            )
        if inside := self.same + self.near - len(self.pairs):
            yield f"{inside:,} images are the same or nearly the same as another of their part"
        if self.persons:
            yield (
                f"{self.persons:,} persons have images in two parts of the split, "
                f"{self.test_images_of_known_persons:,} test images among them: a test accuracy will be too good; "
                "data.split.group=identity keeps persons together"
            )

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "same": self.same,
            "near": self.near,
            "pairs_across_parts": [list(pair) for pair in self.pairs],
            "persons_across_parts": self.persons,
            "test_images_of_known_persons": self.test_images_of_known_persons,
        }


def find_overlap(
    split: pd.DataFrame, pixels: Mapping[str, str], hashes: Mapping[str, str]
) -> Overlap:
    """What stands in two parts of `split` (file, part, where known identity).

    `pixels` and `hashes` give each file's digest of pixels and its perceptual hash in hexadecimal digits.
    """
    files, parts = split["file"].tolist(), split["part"].tolist()
    digests = split["file"].map(pixels)
    earlier: dict[str, int] = {}
    same: list[tuple[int, int]] = []
    for index, digest in enumerate(digests):
        if digest in earlier:
            same.append((earlier[digest], index))
        else:
            earlier[digest] = index
    distinct = sorted(earlier.values())
    near = [
        (distinct[i], distinct[j])
        for i, j in near_pairs(words([hashes[files[index]] for index in distinct]))
    ]
    across = [(i, j) for i, j in (*same, *near) if parts[i] != parts[j]]
    pairs = tuple((f"{parts[i]}/{files[i]}", f"{parts[j]}/{files[j]}") for i, j in across)
    persons, known = _persons(split)
    return Overlap(len(same), len(near), pairs, persons, known)


def words(hashes: list[str]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Perceptual hashes of 64 hexadecimal digits as (images, HASH_WORDS) uint64."""
    values = b"".join(bytes.fromhex(text) for text in hashes)
    return np.frombuffer(values, dtype=np.uint64).reshape(-1, HASH_WORDS)


def near_pairs(
    hashes: "np.ndarray[Any, np.dtype[np.uint64]]", bits: int = NEAR_BITS
) -> Iterator[tuple[int, int]]:
    """Positions i < j whose hashes differ in at most `bits`: every pair is looked at, 30,000 images in seconds."""
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        others = hashes[start:]
        distance = np.zeros((len(block), len(others)), dtype=np.uint16)
        for word in range(hashes.shape[1]):
            distance += np.bitwise_count(block[:, word, None] ^ others[None, :, word])
        for i, j in np.argwhere(distance <= bits):
            if i < j:
                yield start + int(i), start + int(j)


def _persons(split: pd.DataFrame) -> tuple[int | None, int | None]:
    """Persons in two parts or more, and test images of such."""
    if "identity" not in split:
        return None, None
    known = split.dropna(subset="identity")
    parts = known.groupby("identity")["part"].nunique()
    several = set(parts[parts > 1].index)
    test = known.loc[known["part"] == "test", "identity"]
    return len(several), int(test.isin(several).sum())
