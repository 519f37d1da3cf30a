"""Does the winner lie at the edge of the searched range, and what should be tried next?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, NamedTuple

import numpy as np

from analysis.wording import SECONDARY, setting_value
from sweep.request.space import Choice, Dimension
from trainable.config import TrialConfig

EDGE: Final = 0.1
"""The share of a range at either end that counts as its edge; assumed."""
FEWEST_LISTED: Final = 3
"""Of two listed values, each is at an end, which means nothing."""


@dataclass(frozen=True)
class Edge:
    """The winner lies at the edge of the searched range."""

    name: str
    value: float
    low: float
    high: float
    next_low: float
    next_high: float
    """The range to try next, within what the setting allows."""

    def said(self) -> str:
        """In a sentence."""
        value, low, high = map(setting_value, (self.value, self.low, self.high))
        ends = (self.next_low, self.next_high)
        then = " to ".join(f"{e:.2g}" if isinstance(e, float) else str(e) for e in ends)
        excluded = [
            f" ({end} itself is not allowed)"
            for end in ends
            if end in limits_of(self.name).excluded
        ]
        return (
            f"the winner's {self.name} {value} lies at the edge of the searched range ({low} to {high}), so the best "
            f"value may lie beyond it: try {then} next{''.join(excluded)}"
        )


class Limits(NamedTuple):
    """What a numeric setting allows."""

    low: float
    high: float
    excluded: tuple[float, ...]
    """Those of the two that are not allowed themselves."""


def limits_of(name: str) -> Limits:
    """As TrialConfig checks them; infinite where there is none."""
    found = {
        key: limit
        for each in TrialConfig.model_fields[name].metadata
        for key in ("ge", "gt", "le", "lt")
        if (limit := getattr(each, key, None)) is not None
    }
    low, high = found.get("ge", found.get("gt", -inf)), found.get("le", found.get("lt", inf))
    return Limits(low, high, tuple(found[key] for key in ("gt", "lt") if key in found))


def edges_of(settings: Mapping[str, Any], dimensions: Sequence[Dimension]) -> Iterator[Edge]:
    """Numeric settings whose value lies at an end of the searched range, if they allow values beyond that end.

    Seeds don't count as settings.
    """
    for dimension in dimensions:
        value = settings.get(dimension.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if dimension.name in SECONDARY:
            continue
        if isinstance(dimension.domain, Choice):
            numbers = [v for v in dimension.domain.values if isinstance(v, int | float)]
            if len(numbers) < FEWEST_LISTED:
                continue
            low, high, logarithmic = min(numbers), max(numbers), min(numbers) > 0
            at_edge = value in (low, high)
        else:
            low, high = dimension.domain.low, dimension.domain.high
            logarithmic = dimension.domain.kind.startswith("log")
            place = _place(value, low, high, logarithmic)
            at_edge = min(place, 1 - place) < EDGE
        if at_edge and low < high:
            upper = _place(value, low, high, logarithmic) > 0.5
            then = _allowed(
                dimension.name,
                _shifted(low, high, logarithmic, upper),
                whole=isinstance(value, int),
            )
            if then[0] < low or then[1] > high:
                yield Edge(dimension.name, value, low, high, *then)


def _place(value: float, low: float, high: float, logarithmic: bool) -> float:
    """The place of a value between 0 (`low`) and 1 (`high`)."""
    if logarithmic:
        value, low, high = np.log([value, low, high])
    return float((value - low) / (high - low))


def _shifted(low: float, high: float, logarithmic: bool, upper: bool) -> tuple[float, float]:
    """A range as wide as low to high, moved by half its width towards the edge where the best value lies."""
    if logarithmic:
        factor = float(np.sqrt(high / low))
        return (low * factor, high * factor) if upper else (low / factor, high / factor)
    half = (high - low) / 2 if upper else (low - high) / 2
    return round(low + half, 12), round(high + half, 12)  # 0.2 - (0.6 - 0.2) / 2 is 3e-17


def _allowed(name: str, ends: tuple[float, float], *, whole: bool) -> tuple[float, float]:
    """The range as far as the setting allows it; in whole numbers if its values are."""
    low, high = map(round, ends) if whole else ends
    limits = limits_of(name)
    return max(low, limits.low), min(high, limits.high)
