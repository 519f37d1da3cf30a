"""Joins rows and files by name: exactly if possible, otherwise by parts of the names, if unambiguous.

Names vary by source: `1.JPG` here and `img/000001.jpg` there. Each step below leaves out a little more. A name that two
rows or two files would share at a step is not matched by it, so nothing is ever joined to the wrong file.
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
"""What a step compares; None if the name has no such part."""
DEEPEST: Final = 16
"""The most leading folders that are left out of a name; assumed."""


@dataclass(frozen=True)
class JoinStep:
    """One way to compare a row's name with a file's."""

    said: str
    row: Key
    file: Key
    looks_inside: bool = True
    """Are the folders of a name part of the comparison?"""


@dataclass(frozen=True)
class Matched:
    """Rows of a table, and what they were joined to."""

    found: tuple[str | None, ...]
    """The matching name for each row; None if there is none, or no unique one."""
    steps: Counter[str]
    """Number of rows by step; "" for equal names."""

    @property
    def count(self) -> int:
        return sum(self.steps.values())

    def lacking(self, names: Sequence[str]) -> list[str]:
        """The names of the rows for which nothing was found."""
        return [name for name, found in zip(names, self.found, strict=True) if found is None]

    def said(self) -> str:
        """`60 of 60 rows`, and by which steps if names are not equal."""
        loose = [f"{count:,} {step}" for step, count in self.steps.items() if step]
        by = f" ({', '.join(loose)})" if loose else ""
        return f"{self.count:,} of {len(self.found):,} rows{by}"


def some(names: Sequence[str]) -> str:
    """The first five, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def normal(name: str) -> str:
    """With forward slashes and composed letters, whichever system wrote it, and without `./`."""
    composed = name if name.isascii() else unicodedata.normalize("NFC", name)
    return posixpath.normpath(composed.replace("\\", "/"))


def _small(name: str) -> str:
    return normal(name).casefold()


def without_suffix(name: str) -> str:
    """In lower case, without an image suffix."""
    stem, suffix = posixpath.splitext(_small(name))
    return stem if suffix in IMAGE_SUFFIXES else _small(name)


def _alone(name: str) -> str:
    return posixpath.basename(without_suffix(name))


def _bare(key: Key) -> Key:
    """`key` of a name without folders; a name with folders must not match a file in another folder."""
    return lambda name: None if "/" in name else key(name)


def _number(name: str) -> str | None:
    alone = _alone(name)
    return str(int(alone)) if re.fullmatch(r"[0-9]{1,18}", alone) else None


def _less(folders: int, key: Key) -> Key:
    """`key` of a name without this many leading folders; None if it has fewer."""

    def shorter(name: str) -> str | None:
        parts = name.lstrip("/").split("/")
        return key("/".join(parts[folders:])) if len(parts) > folders else None

    return shorter


def steps(names: Iterable[str]) -> Iterator[JoinStep]:
    """The ways to compare `names`, the strictest first."""
    yield JoinStep("", normal, normal)
    yield JoinStep("ignoring case", _small, _small)
    yield JoinStep("without suffix", without_suffix, without_suffix)
    deepest = min(max((name.strip("/").count("/") for name in names), default=0), DEEPEST)
    for folders in range(1, deepest + 1):
        less = f"without {folders} leading folder{'s' if folders > 1 else ''}"
        yield JoinStep(less, _less(folders, normal), normal)
        yield JoinStep(f"{less} and suffix", _less(folders, without_suffix), without_suffix)
    yield JoinStep("without folder and suffix", _bare(_alone), _alone, looks_inside=False)
    yield AS_NUMBERS


AS_NUMBERS: Final = JoinStep("as numbers", _bare(_number), _number, looks_inside=False)
"""Numbers are close to each other, so this step is used for all rows or for none."""


def match(rows: Sequence[str], files: Iterable[str], numbers: bool = True) -> Matched:
    """Join every row's name to one of `files`, each by the strictest step that finds one; never one file to two rows.

    A step is skipped if a file that a stricter step found has a twin by it, such as a mask beside each image.
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
    """The names by keys that only one of them has, and the keys that several share."""
    by_key: dict[str, str] = {}
    shared = set()
    for name in names:
        mine = key(name)
        if mine is not None and by_key.setdefault(mine, name) != name:
            shared.add(mine)
    return {each: name for each, name in by_key.items() if each not in shared}, shared
