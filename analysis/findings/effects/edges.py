"""Does the winner lie at the edge of the searched range, and what should be tried next?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from analysis.wording import SECONDARY, setting_value
from sweep.request.space import Choice, Dimension

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

    def said(self) -> str:
        """In a sentence."""
        value, low, high = map(setting_value, (self.value, self.low, self.high))
        return (
            f"the winner's {self.name} {value} lies at the edge of the searched range ({low} to {high}), so the best "
            f"value may lie beyond it: try {self.next_low:.2g} to {self.next_high:.2g} next"
        )


def edges_of(settings: Mapping[str, Any], dimensions: Sequence[Dimension]) -> Iterator[Edge]:
    """Numeric settings whose value lies at an end of the searched range. Seeds don't count as settings."""
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
            yield Edge(dimension.name, value, low, high, *_shifted(low, high, logarithmic, upper))


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
    half = (high - low) / 2
    return (low + half, high + half) if upper else (low - half, high - half)
