"""Accuracy within groups of other attributes: men and women, young people and others."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from analysis.judgement.predicted import rights
from analysis.levels import ALPHA
from analysis.statistics import Difference, Interval, holm, two_proportions, wilson
from analysis.wording import counted, percent, points
from sweep.request.config import SweepConfig
from trainable.data import attributes_by_file, find_table
from trainable.data.tables.names import match
from trainable.errors import RequestError
from trainable.records.manifest import Manifest

FEWEST: Final = 20
"""The fewest images of a group for which its accuracy is reported; assumed."""
SAID: Final = {True: "yes", False: "no"}


@dataclass(frozen=True)
class Group:
    """The images with one value of an attribute."""

    value: str
    images: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Attribute:
    """An attribute with two values, the larger one first."""

    name: str
    having: Group
    lacking: Group
    versus: Difference
    """Accuracy of `having` minus that of `lacking`."""
    p_holm: float
    """Of Fisher's exact test, corrected for all attributes."""

    @property
    def differs(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Groups:
    """Every attribute whose two groups are large enough, the most significant difference first."""

    each: tuple[Attribute, ...]
    left_out: tuple[str, ...]
    """Attributes with a group of fewer than FEWEST images."""

    def said(self) -> Iterator[str]:
        """In sentences."""
        found = [each for each in self.each if each.differs]
        for each in found:
            low, high = each.versus.interval.low, each.versus.interval.high
            yield (
                f"accuracy is {percent(each.having.accuracy)} where {each.name} is {each.having.value} and "
                f"{percent(each.lacking.accuracy)} where it is {each.lacking.value}: "
                f"{points(each.versus.difference)} (95 % confidence interval {points(low)} to {points(high)}, "
                f"p = {each.p_holm:.2g} after Holm's correction)"
            )
        if self.each and not found:
            yield (
                f"no significant difference in accuracy between the groups of {counted(len(self.each), 'attribute')} "
                "(Fisher's exact test, Holm's correction)"
            )
        if self.left_out:
            yield (
                f"{counted(len(self.left_out), 'attribute')} left out: one group has fewer than {FEWEST} images"
            )

    def frame(self) -> pd.DataFrame:
        """One row per attribute: attribute, difference, low, high (shares), differs."""
        rows = [
            {
                "attribute": each.name,
                "difference": each.versus.difference,
                "low": each.versus.interval.low,
                "high": each.versus.interval.high,
                "differs": each.differs,
            }
            for each in self.each
        ]
        return pd.DataFrame(rows, columns=["attribute", "difference", "low", "high", "differs"])


def groups_of(predictions: pd.DataFrame, attributes: pd.DataFrame, target: str) -> Groups:
    """Each column of `attributes` (indexed by file) with two values, except the target, over `predictions`.

    `predictions` has file, label, logit. Images without a value are in neither group. Files are matched by their names
    as they were when the run began.
    """
    right = rights(predictions)
    joined = match(list(predictions["file"]), attributes.index)
    mine = attributes.reindex(list(joined.found)).reset_index(drop=True)
    found: list[tuple[str, Group, Group, Difference]] = []
    left_out = []
    for name in attributes.columns:
        known = attributes[name].dropna()
        if name == target or known.nunique() != 2:
            continue
        low, high = sorted(known.unique(), key=lambda value: (isinstance(value, str), value))
        inside = [right[(mine[name] == value).to_numpy()] for value in (high, low)]
        if min(map(len, inside)) < FEWEST:
            left_out.append(str(name))
            continue
        yes_or_no = {low, high} in ({-1, 1}, {0, 1})
        having, lacking = (
            Group(
                SAID[value == high] if yes_or_no else str(value),
                len(each),
                float(each.mean()),
                wilson(int(each.sum()), len(each)),
            )
            for value, each in zip((high, low), inside, strict=True)
        )
        versus = two_proportions(
            int(inside[0].sum()), len(inside[0]), int(inside[1].sum()), len(inside[1])
        )
        found.append((str(name), having, lacking, versus))
    adjusted = holm([versus.p for *_, versus in found])
    each = [Attribute(*facts, p) for facts, p in zip(found, adjusted, strict=True)]
    each.sort(key=lambda one: (one.versus.p, one.name))
    return Groups(tuple(each), tuple(left_out))


def read_attributes(config: SweepConfig, manifest: Manifest) -> pd.DataFrame:
    """The run's image table, indexed by file, if it is still the one that the run began with.

    Raises:
        RequestError: it is missing, or has changed.
    """
    path = _table(config, manifest)
    recorded = manifest.digests.table
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RequestError(
            f"accuracy within groups needs the table {path}, but it can't be read: {error.strerror}; "
            "give its new place with `sweep resume RUN data.table=PLACE`"
        ) from None
    if digest != recorded:
        raise RequestError(
            f"accuracy within groups needs the table {path} as it was when the run began (SHA-256 {recorded}), "
            "but it has changed"
        )
    return attributes_by_file(path, manifest.file_column)


def _table(config: SweepConfig, manifest: Manifest) -> Path:
    """Where the table is: as recorded, as configured, or beside the images; a zip is not extracted to find it."""
    if manifest.digests.table is None:
        raise RequestError(
            "accuracy within groups needs a table of attributes, but this run has none: its classes come from folders"
        )
    named = manifest.table or config.data.table
    if named:
        return named
    images = config.data.images
    root = images if images.is_dir() else images.with_name(f"{images.name}.extracted")
    return find_table(images, root)
