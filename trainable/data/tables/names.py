"""Joining by file name: exactly where that can be, else by what is left of the names, where it is unambiguous.

Names come from different hands: `1.JPG` here and `img/000001.jpg` there. Each step below leaves a little more out. A
name that two rows or two files would share at a step is not matched by it, so nothing is ever joined to the wrong one.
"""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from trainable.data.tables.reading import IMAGE_SUFFIXES

Key = Callable[[str], str | None]
"""What a step compares; None where the name has no such thing."""
DEEPEST: Final = 16
"""Folders that are left out of the front of a name, at most; assumed."""


@dataclass(frozen=True)
class JoinStep:
    """One way to compare a row's name with a file's."""

    said: str
    row: Key
    file: Key
    looks_inside: bool = True
    """Are the folders of a name a part of what is compared?"""


@dataclass(frozen=True)
class Matched:
    """Rows of a table and what they were joined to."""

    found: tuple[str | None, ...]
    """The other side's name of each row; None where there is none, or no single one."""
    steps: Counter[str]
    """Rows by step; "" are equal names."""

    @property
    def count(self) -> int:
        return sum(self.steps.values())

    def lacking(self, names: Sequence[str]) -> list[str]:
        """The names of the rows that nothing was found for."""
        return [name for name, found in zip(names, self.found, strict=True) if found is None]

    def said(self) -> str:
        """`60 of 60 rows`, and by what, where names are not equal."""
        loose = [f"{count:,} {step}" for step, count in self.steps.items() if step]
        by = f" ({', '.join(loose)})" if loose else ""
        return f"{self.count:,} of {len(self.found):,} rows{by}"


def some(names: Sequence[str]) -> str:
    """The first five, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def normal(name: str) -> str:
    """With slashes and composed letters, whichever system wrote it, and without `./`."""
    composed = name if name.isascii() else unicodedata.normalize("NFC", name)
    return posixpath.normpath(composed.replace("\\", "/"))


def _small(name: str) -> str:
    return normal(name).casefold()


def without_suffix(name: str) -> str:
    """In small letters, without the suffix of an image."""
    stem, suffix = posixpath.splitext(_small(name))
    return stem if suffix in IMAGE_SUFFIXES else _small(name)


def _alone(name: str) -> str:
    return posixpath.basename(without_suffix(name))


def _bare(key: Key) -> Key:
    """`key` of a name that has no folder: one that has must not answer to a file in another."""
    return lambda name: None if "/" in name else key(name)


def _number(name: str) -> str | None:
    alone = _alone(name)
    return str(int(alone)) if re.fullmatch(r"[0-9]{1,18}", alone) else None


def _less(folders: int, key: Key) -> Key:
    """`key` of a name without so many folders at its front; None where it has fewer."""

    def shorter(name: str) -> str | None:
        parts = name.lstrip("/").split("/")
        return key("/".join(parts[folders:])) if len(parts) > folders else None

    return shorter


def steps(names: Iterable[str]) -> Iterator[JoinStep]:
    """The ways to compare `names`, the strictest first."""
    yield JoinStep("", normal, normal)
    yield JoinStep("whatever their case", _small, _small)
    yield JoinStep("without their suffix", without_suffix, without_suffix)
    deepest = min(max((name.strip("/").count("/") for name in names), default=0), DEEPEST)
    for folders in range(1, deepest + 1):
        less = f"without {folders} leading folder{'s' if folders > 1 else ''}"
        yield JoinStep(less, _less(folders, normal), normal)
        yield JoinStep(f"{less} and their suffix", _less(folders, without_suffix), without_suffix)
    yield JoinStep("without folder and suffix", _bare(_alone), _alone, looks_inside=False)
    yield AS_NUMBERS


AS_NUMBERS: Final = JoinStep("as numbers", _bare(_number), _number, looks_inside=False)
"""Numbers are near each other, so that it is taken for all rows or for none."""


def match(rows: Sequence[str], files: Iterable[str], numbers: bool = True) -> Matched:
    """Join every row's name to one of `files`, each by the strictest step that finds one; no file to two rows.

    A step is passed over where a file that a stricter one has found has a twin by it: images with their masks beside.
    """
    known = list(files)
    found: list[str | None] = [None] * len(rows)
    counts: Counter[str] = Counter()
    for step in steps(rows):
        left = [place for place, each in enumerate(found) if each is None]
        if not left or (step is AS_NUMBERS and (counts or not numbers)):
            break
        by_key, shared = _by_key(known, step.file)
        keys = list(map(step.row, rows))
        if counts and any(keys[place] in shared for place, each in enumerate(found) if each):
            continue
        mine, taken = Counter(keys), set(found)
        for place in left:
            key = keys[place]
            if key is not None and mine[key] == 1 and by_key.get(key) not in taken:
                found[place] = by_key[key]
                counts[step.said] += 1
        if step is AS_NUMBERS and None in found:
            return Matched((None,) * len(rows), Counter())
    return Matched(tuple(found), counts)


def _by_key(names: Iterable[str], key: Key) -> tuple[dict[str, str], set[str]]:
    """The names by keys that one alone has, and the keys that several share."""
    by_key: dict[str, str] = {}
    shared = set()
    for name in names:
        mine = key(name)
        if mine is not None and by_key.setdefault(mine, name) != name:
            shared.add(mine)
    return {each: name for each, name in by_key.items() if each not in shared}, shared
