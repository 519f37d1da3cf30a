"""What all plots share: colours by role, so that a page can change them in dark mode; axes; wording."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args

import pandas as pd
import plotly.graph_objects as go

from analysis.wording import NARROW, is_rate, setting
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import BROKEN, Status
from trainable.show import colours

COLOURS: Final = {role: colour.plot for role, colour in colours.COLOURS.items()}
"""Colours in plots; symbols convey the same information."""
SYMBOLS: Final = {
    "winner": "star",
    "finished": "circle",
    "pruned": "circle-open",
    "diverged": "x",
    "collapsed": "square-open",
    "failed": "triangle-down",
    "running": "circle-open-dot",
    "interrupted": "diamond-open",
    "pending": "circle-open",
}
MARKED: Final = (*BROKEN, Status.FAILED, Status.INTERRUPTED)
FADED: Final = {"pruned": 0.4, "winner": 1}  # opacity, by eye
CROWD: Final = 40  # with more lines than this, they are drawn thinner; by eye
GOLDEN: Final = (
    math.sqrt(5) - 1
) / 2  # fractional part of the golden ratio: its multiples spread points evenly and reproducibly

TrialRow = dict[str, Any]

AXIS: Final[dict[str, Any]] = {
    "gridcolor": "rgba(128,128,128,0.18)",
    "linecolor": "rgba(128,128,128,0.5)",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12}},
}
TEMPLATE: Final = go.layout.Template(
    layout={
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8},
        "xaxis": AXIS | {"showgrid": False, "showline": True, "ticks": "outside", "ticklen": 4},
        "yaxis": AXIS,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
            "traceorder": "reversed",
        },
        "hoverlabel": {"align": "left"},
        "dragmode": False,
    }
)


def marker_of(role: str) -> dict[str, Any]:
    """The marker of one trial; the winner's is larger."""
    size = 13 if role == "winner" else 8
    return {"color": COLOURS[role], "symbol": SYMBOLS[role], "size": size}


def whiskers(above: list[float], below: list[float], width: int) -> dict[str, Any]:
    """Error bars: an interval around each point, with its distances above and below."""
    sides = {"array": above, "arrayminus": below}
    return {"type": "data", "symmetric": False, "thickness": 1.4, "width": width, **sides}


def value_said(metric: Metric) -> str:
    return f"{metric.value} {y_said(is_rate(metric))}"


def y_said(rate: bool) -> str:
    """plotly's hover format for a y value."""
    return f"%{{y:.2f}}{NARROW}%" if rate else "%{y:.4f}"


def heights(values: Iterable[float], rate: bool) -> list[float]:
    """y values of points; rates are in percent."""
    return [value * 100 if rate else value for value in values]


def hover(row: TrialRow, settings: Sequence[str], metric: Metric) -> str:
    return (
        f"{row['trial_id']} · {row['status']}<br>{setting(row, settings)}<br>"
        f"{value_said(metric)} at epoch %{{x}}<extra></extra>"
    )


def role_of(row: TrialRow, winner: str | None) -> str:
    return "winner" if row["trial_id"] == winner else str(row["status"])


def valued(trials: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Trials that have a value, without audits, which repeat a trial that is already there."""
    return trials[trials[metric.value].notna() & (trials["origin"] != "audit")]


def winner_last(trials: pd.DataFrame, winner: str | None) -> list[TrialRow]:
    """Rows in drawing order, the most important last: pruned, others, winner."""
    rows: list[TrialRow] = trials.to_dict(orient="records")  # type: ignore[assignment]
    return sorted(rows, key=lambda row: (row["trial_id"] == winner, row["status"] != "pruned"))


def by_role(trials: pd.DataFrame, winner: str | None) -> Iterator[tuple[str, list[TrialRow]]]:
    groups: dict[str, list[TrialRow]] = {}
    for row in winner_last(trials, winner):
        groups.setdefault(role_of(row, winner), []).append(row)
    yield from groups.items()


def span_of(values: Sequence[float]) -> list[float] | None:
    """A common y range for all settings, with room for the markers at both ends."""
    if not values:
        return None
    room = 0.08 * (max(values) - min(values)) or 0.05 * abs(values[0])
    return [min(values) - room, max(values) + room]


def decades_around(low: float, high: float) -> list[float]:
    """Powers of ten around `low` and `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**exponent for exponent in exponents]


def in_order(name: str, values: Iterable[Any]) -> list[Any]:
    """In the order of TrialConfig if it lists them (strategies: from the head down), else by size or alphabet."""
    listed = get_args(TrialConfig.model_fields[name].annotation)
    return sorted(values, key=lambda value: (listed.index(value) if value in listed else 0, value))


def layout_of(title: str, longest: int | None, height: int, rate: bool) -> dict[str, Any]:
    """A plot's layout: the title of its y axis, and if x is the epoch, up to which epoch it goes."""
    found = {
        "template": TEMPLATE,
        "height": height,
        "yaxis": {"title": {"text": title}} | ({"ticksuffix": f"{NARROW}%"} if rate else {}),
    }
    if longest is not None:
        step = max(1, math.ceil(longest / 8))
        room = max(0.15, longest * 0.02)
        found["xaxis"] = {
            "title": {"text": "epoch"},
            "tick0": 0,
            "dtick": step,
            "range": [1 - room, max(longest, 2) + room],
        }
    return found


def finish(
    figure: go.Figure, title: str, longest: int | None, height: int, rate: bool
) -> go.Figure:
    """`figure` with the layout of `layout_of`."""
    return figure.update_layout(layout_of(title, longest, height, rate))
