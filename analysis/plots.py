"""Each plot: frame in, figure out. Colours go by role, so that a page can give a role another colour in the dark."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args

import pandas as pd
import plotly.graph_objects as go

from analysis.wording import NARROW, is_rate, metric_name, setting, setting_value
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.rows import Status

COLOURS: Final = {  # Okabe and Ito 2008: told apart with any kind of colour vision; shapes say the same again
    "winner": "#009e73",
    "finished": "#0072b2",
    "pruned": "#9a9a9a",
    "diverged": "#d55e00",
    "collapsed": "#b8568e",
    "failed": "#7d1d12",
    "running": "#56b4e9",
    "interrupted": "#e69f00",
    "pending": "#c4c4c4",
    "train": "#9a9a9a",
    "validation": "#0072b2",
}
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
MARKED: Final = (Status.DIVERGED, Status.COLLAPSED, Status.FAILED, Status.INTERRUPTED)
LISTED: Final = 6  # numbers that repeat and have at most so many values are drawn as a list of them
LOG_SPAN: Final = 9  # numbers that span more than this factor are drawn on a logarithmic axis
FADED: Final = {"pruned": 0.4, "winner": 1}
CROWD: Final = 40  # lines; more of them are drawn finer
GOLDEN: Final = (
    math.sqrt(5) - 1
) / 2  # multiples of it spread points evenly, the same way each time

TrialRow = dict[str, Any]

_AXIS: Final[dict[str, Any]] = {
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
        "xaxis": _AXIS | {"showgrid": False, "showline": True, "ticks": "outside", "ticklen": 4},
        "yaxis": _AXIS,
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


def validation_by_epoch(
    epochs: pd.DataFrame,
    trials: pd.DataFrame,
    metric: Metric,
    settings: Sequence[str],
    winner: str | None,
) -> go.Figure:
    """The metric by epoch, one line a trial: pruned ones faded, the winner strong, other early ends marked."""
    figure = go.Figure()
    lines = dict(list(epochs.groupby("trial_id", sort=False)))
    crowd = len(lines) > CROWD
    told: set[str] = set()
    for row in _winner_last(trials, winner):
        line = lines.get(row["trial_id"])
        if line is None:
            continue
        role = _role(row, winner)
        figure.add_trace(
            go.Scatter(
                x=line["epoch"].tolist(),
                y=_shown(line[metric.value], is_rate(metric)),
                mode="lines+markers",
                line={
                    "color": COLOURS[role],
                    "width": 3 if role == "winner" else 1 if crowd else 1.4,
                },
                marker={
                    "color": COLOURS[role],
                    "size": _sizes(len(line), row, role),
                    "symbol": _symbols(len(line), row, role),
                    "line": {"width": 0},
                },
                opacity=FADED.get(role, 0.6 if crowd else 1),
                name=role,
                legendgroup=role,
                showlegend=role not in told,
                meta={"role": role},
                hovertemplate=_hover(row, settings, metric),
            )
        )
        told.add(role)
    longest = int(epochs["epoch"].max()) if len(epochs) else 1
    return _finish(figure, metric_name(metric), longest, 380, rate=is_rate(metric))


def _sizes(count: int, row: TrialRow, role: str) -> list[int]:
    """Small points; a larger one at the end of a trial that ended before its time."""
    last = 10 if row["status"] in MARKED else 5 if role == "winner" or count == 1 else 3
    return [5 if role == "winner" else 3] * (count - 1) + [last]


def _symbols(count: int, row: TrialRow, role: str) -> list[str]:
    last = SYMBOLS[role] if row["status"] in MARKED else "circle"
    return ["circle"] * (count - 1) + [last]


def best_by_setting(
    trials: pd.DataFrame, metric: Metric, name: str, settings: Sequence[str], winner: str | None
) -> go.Figure:
    """The best value of each trial by one setting, points of the same value side by side."""
    column = f"config/{name}"
    seen = trials[trials[metric.value].notna()]
    known = seen[seen[column].notna()]
    figure = go.Figure()
    distinct = known[column].nunique()
    listed = known[column].dtype == "string" or distinct <= min(LISTED, len(known) - 1)
    values = _in_order(name, known[column].unique()) if listed else []
    for role, rows in _by_role(known, winner):
        x = (
            [values.index(row[column]) + _aside(int(row["number"])) for row in rows]
            if listed
            else [row[column] for row in rows]
        )
        figure.add_trace(
            go.Scatter(
                x=x,
                y=_shown((row[metric.value] for row in rows), is_rate(metric)),
                mode="markers",
                marker={
                    "color": COLOURS[role],
                    "symbol": SYMBOLS[role],
                    "size": 13 if role == "winner" else 8,
                },
                name=role,
                showlegend=False,
                meta={"role": role},
                customdata=[
                    [row["trial_id"], setting(row, settings), row["best_epoch"]] for row in rows
                ],
                hovertemplate=(
                    f"%{{customdata[0]}} · {role}<br>%{{customdata[1]}}<br>"
                    f"{_value(metric)} at epoch %{{customdata[2]}}<extra></extra>"
                ),
            )
        )
    _finish(figure, "", None, 240, rate=is_rate(metric))
    figure.update_layout(margin_t=10)
    figure.update_xaxes(title_text=name)
    figure.update_yaxes(range=_range(_shown(seen[metric.value], is_rate(metric))))
    if listed:
        figure.update_xaxes(
            tickvals=list(range(len(values))),
            ticktext=[setting_value(value) for value in values],
            range=[-0.6, len(values) - 0.4],
        )
    elif len(known) and 0 < known[column].min() * LOG_SPAN < known[column].max():
        decades = _decades(known[column].min(), known[column].max())
        figure.update_xaxes(type="log", tickvals=decades, ticktext=[f"{x:g}" for x in decades])
    return figure


def _range(values: Sequence[float]) -> list[float] | None:
    """The same heights for every setting, with room for the marks at both ends."""
    if not values:
        return None
    room = 0.08 * (max(values) - min(values)) or 0.05 * abs(values[0])
    return [min(values) - room, max(values) + room]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten around `low` and `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**exponent for exponent in exponents]


def _in_order(name: str, values: Iterable[Any]) -> list[Any]:
    """As TrialConfig lists them, where it does (strategies: from the head down), else by size or alphabet."""
    listed = get_args(TrialConfig.model_fields[name].annotation)
    return sorted(values, key=lambda value: (listed.index(value) if value in listed else 0, value))


def _aside(number: int) -> float:
    return (number * GOLDEN % 1 - 0.5) * 0.44


def loss(epochs: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Training and validation loss of one trial by epoch, its best epoch marked."""
    return _curves(epochs, "loss", "loss in nats", best_epoch, rate=False)


def accuracy(epochs: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Training and validation accuracy of one trial by epoch, its best epoch marked."""
    return _curves(epochs, "accuracy", "accuracy", best_epoch, rate=True)


def _curves(
    epochs: pd.DataFrame, what: str, title: str, best_epoch: int | None, rate: bool
) -> go.Figure:
    figure = go.Figure()
    for role, column, dash in (
        ("train", f"train_{what}", "dot"),
        ("validation", f"val_{what}", "solid"),
    ):
        figure.add_trace(
            go.Scatter(
                x=epochs["epoch"].tolist(),
                y=_shown(epochs[column], rate),
                mode="lines+markers",
                line={"color": COLOURS[role], "width": 2, "dash": dash},
                marker={
                    "color": COLOURS[role],
                    "size": [
                        10 if role == "validation" and epoch == best_epoch else 5
                        for epoch in epochs["epoch"]
                    ],
                    "line": {"width": 0},
                },
                name=role,
                meta={"role": role},
                hovertemplate=f"{role} {_y(rate)} at epoch %{{x}}<extra></extra>",
            )
        )
    if best_epoch is not None:
        figure.add_vline(best_epoch, line={"color": "rgba(128,128,128,0.6)", "width": 1})
    return _finish(figure, title, int(epochs["epoch"].max()) if len(epochs) else 1, 250, rate)


def _finish(
    figure: go.Figure, title: str, longest: int | None, height: int, rate: bool
) -> go.Figure:
    figure.update_layout(template=TEMPLATE, height=height)
    figure.update_yaxes(title_text=title, ticksuffix=f"{NARROW}%" if rate else None)
    if longest is not None:
        step = max(1, math.ceil(longest / 8))
        room = max(0.15, longest * 0.02)
        figure.update_xaxes(
            title_text="epoch", tick0=0, dtick=step, range=[1 - room, max(longest, 2) + room]
        )
    return figure


def _value(metric: Metric) -> str:
    return f"{metric.value} {_y(is_rate(metric))}"


def _y(rate: bool) -> str:
    """How plotly is to say a height."""
    return f"%{{y:.2f}}{NARROW}%" if rate else "%{y:.4f}"


def _shown(values: Iterable[float], rate: bool) -> list[float]:
    """Heights of points: rates in percent."""
    return [value * 100 if rate else value for value in values]


def _hover(row: TrialRow, settings: Sequence[str], metric: Metric) -> str:
    return (
        f"{row['trial_id']} · {row['status']}<br>{setting(row, settings)}<br>"
        f"{_value(metric)} at epoch %{{x}}<extra></extra>"
    )


def _role(row: TrialRow, winner: str | None) -> str:
    return "winner" if row["trial_id"] == winner else str(row["status"])


def _winner_last(trials: pd.DataFrame, winner: str | None) -> list[TrialRow]:
    """Rows so that what matters most is drawn last: pruned, others, winner."""
    rows: list[TrialRow] = trials.to_dict(orient="records")  # type: ignore[assignment]
    return sorted(rows, key=lambda row: (row["trial_id"] == winner, row["status"] != "pruned"))


def _by_role(trials: pd.DataFrame, winner: str | None) -> Iterator[tuple[str, list[TrialRow]]]:
    groups: dict[str, list[TrialRow]] = {}
    for row in _winner_last(trials, winner):
        groups.setdefault(_role(row, winner), []).append(row)
    yield from groups.items()
