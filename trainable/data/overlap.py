"""Images and people that are in more than one part of a split, which makes a test accuracy too good.

Images are the same if their pixels are (a renamed or re-wrapped file), near if their perceptual hashes are: smaller, or
saved again with another quality. Mirrored and cropped copies are not found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

HASH_WORDS: Final = 4  # of 64 bits: imagehash's pHash with 16 × 16 bits
NEAR_BITS: Final = 16
"""Of 256: two hashes that differ in no more bits are of the same image (measured on drawn faces, docs/log.md)."""
KEY_BITS: Final = 16  # of a bucket: its key is a uint16
SMALL: Final = (
    128  # hashes with the same key, up to which a single loop compares all buckets; assumed
)
TILE: Final = 512  # hashes compared with this many others at a time: 2 MiB; assumed
SHOWN: Final = 3  # pairs that a line names; assumed

Pair = tuple[str, str]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Positions = np.ndarray[Any, np.dtype[np.intp]]
Keys = np.ndarray[Any, np.dtype[np.uint16]]


@dataclass(frozen=True)
class Overlap:
    """What is in two parts of a split."""

    same: int
    """Images with the same pixels as an earlier one, anywhere."""
    near: int
    """Pairs of other images with nearly the same perceptual hash, anywhere."""
    pairs: tuple[Pair, ...]
    """Same or near images in two parts, each named as part/file."""
    persons: int | None
    """People with images in two or more parts; None if people are not known."""
    test_images_of_known_persons: int | None
    """Test images of people who have images in another part."""

    def said(self) -> Iterator[str]:
        """What the user must know before the start, one line each."""
        if self.pairs:
            shown = "; ".join(f"{one} and {other}" for one, other in self.pairs[:SHOWN])
            yield (
                f"{len(self.pairs):,} pairs of the same or nearly the same image are in two parts of the split: "
                f"{shown}{'; …' if len(self.pairs) > SHOWN else ''}; remove one of each"
            )
        if inside := self.same + self.near - len(self.pairs):
            yield f"{inside:,} images are the same or nearly the same as another in their part"
        if self.persons:
            yield (
                f"{self.persons:,} people have images in two parts of the split, "
                f"{self.test_images_of_known_persons:,} test images among them: the test accuracy will be too good; "
                "data.split.group=identity keeps each person's images together"
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
    """What is in two parts of `split` (file, part, and identity if known).

    `pixels` and `hashes` map each file to the digest of its pixels and its perceptual hash in hexadecimal digits.
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
    near = sorted(
        (distinct[i], distinct[j])
        for i, j in near_pairs(words([hashes[files[index]] for index in distinct]))
    )
    across = [(i, j) for i, j in (*same, *near) if parts[i] != parts[j]]
    pairs = tuple((f"{parts[i]}/{files[i]}", f"{parts[j]}/{files[j]}") for i, j in across)
    persons, known = _persons(split)
    return Overlap(len(same), len(near), pairs, persons, known)


def words(hashes: list[str]) -> Hashes:
    """Perceptual hashes of 64 hexadecimal digits as (images, HASH_WORDS) uint64."""
    values = b"".join(bytes.fromhex(text) for text in hashes)
    return np.frombuffer(values, dtype=np.uint64).reshape(-1, HASH_WORDS)


def near_pairs(hashes: Hashes, bits: int = NEAR_BITS) -> Iterator[tuple[int, int]]:
    """Positions i < j whose hashes differ in at most `bits`, each pair once, in no particular order.

    By the pigeonhole principle, of `bits` + 1 groups of bits one is untouched by `bits` differences. So only hashes
    that agree in a group are compared, unless that is more work than comparing every pair: exact either way.
    """
    keys = group_keys(hashes, bits + 1)
    compared = sum(int((sizes * (sizes - 1) // 2).sum()) for sizes in map(_bucket_sizes, keys))
    if compared > len(hashes) * (len(hashes) - 1) // 2:
        keys = np.zeros((1, len(hashes)), np.uint16)
    columns = np.ascontiguousarray(hashes.T)
    for number, key in enumerate(keys):
        order = np.argsort(key, kind="stable")
        for i, j in _near(columns[:, order], _bucket_sizes(key), bits):
            one, other = order[i], order[j]
            earlier = (keys[:number, one] == keys[:number, other]).any(
                axis=0
            )  # found by that group
            one, other = one[~earlier], other[~earlier]
            yield from zip(
                np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), strict=True
            )


def group_keys(hashes: Hashes, groups: int) -> Keys:
    """(groups, images): up to 16 bits of each hash for each group, no bit in two groups.

    Bits are dealt out like cards, the most balanced first. Those of low frequencies are alike in most aligned faces; a
    group of such bits alone would tell few apart.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    ones = bits.sum(axis=0, dtype=np.int64)
    dealt = np.argsort(np.abs(2 * ones - len(hashes)), kind="stable")
    keys = np.zeros((groups, len(hashes)), np.uint16)
    for number, key in enumerate(keys):
        for bit in dealt[number::groups][:KEY_BITS]:
            key <<= 1
            key |= bits[:, bit]
    return keys


def _bucket_sizes(key: Keys) -> Positions:
    """How many hashes have the same key, in the order of keys."""
    sizes = np.bincount(key, minlength=1)
    return sizes[sizes > 0]


def _near(hashes: Hashes, sizes: Positions, bits: int) -> Iterator[tuple[Positions, Positions]]:
    """Places i < j of near pairs in `hashes` (HASH_WORDS, images), in which buckets of `sizes` are side by side.

    Small buckets are compared all at once, each hash with the first after it, then with the second after it, and so
    on; large ones tile by tile, so that memory does not grow with their square.
    """
    ends = np.cumsum(sizes)
    last = np.repeat(ends, sizes) - 1
    place = np.flatnonzero(np.repeat(sizes, sizes) <= SMALL)
    for step in range(1, SMALL):
        place = place[place + step <= last[place]]
        if not len(place):
            break
        near = place[_distance(hashes[:, place], hashes[:, place + step]) <= bits]
        yield near, near + step
    for end, size in zip(ends[sizes > SMALL], sizes[sizes > SMALL], strict=True):
        for top in range(end - size, end, TILE):
            for left in range(top, end, TILE):
                rows = hashes[:, top : min(top + TILE, end), None]
                columns = hashes[:, None, left : min(left + TILE, end)]
                i, j = np.nonzero(_distance(rows, columns) <= bits)
                i, j = i + top, j + left
                yield i[i < j], j[i < j]


def _distance(some: Hashes, others: Hashes) -> Keys:
    """The number of bits in which hashes differ, with their words in the first dimension."""
    distance = np.zeros(np.broadcast_shapes(some.shape[1:], others.shape[1:]), np.uint16)
    for one, other in zip(some, others, strict=True):
        distance += np.bitwise_count(one ^ other)
    return distance


def _persons(split: pd.DataFrame) -> tuple[int | None, int | None]:
    """The number of people in two or more parts, and of their test images."""
    if "identity" not in split:
        return None, None
    known = split.dropna(subset="identity")
    parts = known.groupby("identity")["part"].nunique()
    several = set(parts[parts > 1].index)
    test = known.loc[known["part"] == "test", "identity"]
    return len(several), int(test.isin(several).sum())
