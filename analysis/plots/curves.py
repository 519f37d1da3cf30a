"""The metric by epoch and by setting. Each plot takes a data frame and returns a figure."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.findings.effects.model import LISTED, LOG_SPAN
from analysis.plots.style import (
    COLOURS,
    CROWD,
    FADED,
    GOLDEN,
    MARKED,
    SYMBOLS,
    TrialRow,
    by_role,
    decades_around,
    finish,
    heights,
    hover,
    in_order,
    layout_of,
    marker_of,
    role_of,
    span_of,
    value_said,
    valued,
    winner_last,
    y_said,
)
from analysis.wording import is_rate, metric_name, setting, setting_value
from trainable.metric import Metric


def validation_by_epoch(
    epochs: pd.DataFrame,
    trials: pd.DataFrame,
    metric: Metric,
    settings: Sequence[str],
    winner: str | None,
) -> go.Figure:
    """The metric by epoch, one line per trial: pruned ones faded, the winner bold, other early ends marked."""
    figure = go.Figure()
    lines = dict(list(epochs.groupby("trial_id", sort=False)))
    crowd = len(lines) > CROWD
    told: set[str] = set()
    for row in winner_last(trials, winner):
        line = lines.get(row["trial_id"])
        if line is None:
            continue
        role = role_of(row, winner)
        figure.add_trace(
            go.Scatter(
                x=line["epoch"].tolist(),
                y=heights(line[metric.value], is_rate(metric)),
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
                hovertemplate=hover(row, settings, metric),
            )
        )
        told.add(role)
    longest = int(epochs["epoch"].max()) if len(epochs) else 1
    return finish(figure, metric_name(metric), longest, 380, rate=is_rate(metric))


def _sizes(count: int, row: TrialRow, role: str) -> list[int]:
    """Marker sizes: small, and a larger one at the end of a trial that ended early."""
    last = 10 if row["status"] in MARKED else 5 if role == "winner" or count == 1 else 3
    return [5 if role == "winner" else 3] * (count - 1) + [last]


def _symbols(count: int, row: TrialRow, role: str) -> list[str]:
    last = SYMBOLS[role] if row["status"] in MARKED else "circle"
    return ["circle"] * (count - 1) + [last]


def best_by_setting(
    trials: pd.DataFrame, metric: Metric, name: str, settings: Sequence[str], winner: str | None
) -> go.Figure:
    """The best value of each trial by one setting; points of the same setting are spread sideways."""
    column = f"config/{name}"
    seen = valued(trials, metric)
    known = seen[seen[column].notna()]
    figure = go.Figure()
    distinct = known[column].nunique()
    listed = known[column].dtype == "string" or distinct <= min(LISTED, len(known) - 1)
    values = in_order(name, known[column].unique()) if listed else []
    for role, rows in by_role(known, winner):
        x = (
            [values.index(row[column]) + _aside(int(row["number"])) for row in rows]
            if listed
            else [row[column] for row in rows]
        )
        figure.add_trace(
            go.Scatter(
                x=x,
                y=heights((row[metric.value] for row in rows), is_rate(metric)),
                mode="markers",
                marker=marker_of(role),
                name=role,
                showlegend=False,
                meta={"role": role},
                customdata=[
                    [row["trial_id"], setting(row, settings), row["best_epoch"]] for row in rows
                ],
                hovertemplate=(
                    f"%{{customdata[0]}} · {role}<br>%{{customdata[1]}}<br>"
                    f"{value_said(metric)} at epoch %{{customdata[2]}}<extra></extra>"
                ),
            )
        )
    finish(figure, "", None, 240, rate=is_rate(metric))
    figure.update_layout(margin_t=10)
    figure.update_xaxes(title_text=name)
    figure.update_yaxes(range=span_of(heights(seen[metric.value], is_rate(metric))))
    if listed:
        figure.update_xaxes(
            tickvals=list(range(len(values))),
            ticktext=[setting_value(value) for value in values],
            range=[-0.6, len(values) - 0.4],
        )
    elif len(known) and 0 < known[column].min() * LOG_SPAN < known[column].max():
        marks = decades_around(known[column].min(), known[column].max())
        figure.update_xaxes(type="log", tickvals=marks, ticktext=[f"{x:g}" for x in marks])
    return figure


def _aside(number: int) -> float:
    return (number * GOLDEN % 1 - 0.5) * 0.44


Drawn = dict[str, Any]


def loss(epochs: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Training and validation loss of one trial by epoch, its best epoch marked."""
    return go.Figure(loss_drawn(epochs, best_epoch))


def accuracy(epochs: pd.DataFrame, best_epoch: int | None) -> go.Figure:
    """Training and validation accuracy of one trial by epoch, its best epoch marked."""
    return go.Figure(accuracy_drawn(epochs, best_epoch))


def loss_drawn(epochs: pd.DataFrame, best_epoch: int | None) -> Drawn:
    """`loss` as plotly's data and layout: this takes 0.2 ms, a figure 7 ms, and a report has hundreds of them."""
    return _curves(epochs, "loss", "loss in nats", best_epoch, rate=False)


def accuracy_drawn(epochs: pd.DataFrame, best_epoch: int | None) -> Drawn:
    """`accuracy` as plotly's data and layout."""
    return _curves(epochs, "accuracy", "accuracy", best_epoch, rate=True)


def _curves(
    epochs: pd.DataFrame, what: str, title: str, best_epoch: int | None, rate: bool
) -> Drawn:
    lines = [
        {
            "type": "scatter",
            "x": epochs["epoch"].tolist(),
            "y": heights(epochs[column], rate),
            "mode": "lines+markers",
            "line": {"color": COLOURS[role], "width": 2, "dash": dash},
            "marker": {
                "color": COLOURS[role],
                "size": [
                    10 if role == "validation" and epoch == best_epoch else 5
                    for epoch in epochs["epoch"]
                ],
                "line": {"width": 0},
            },
            "name": role,
            "meta": {"role": role},
            "hovertemplate": f"{role} {y_said(rate)} at epoch %{{x}}<extra></extra>",
        }
        for role, column, dash in (
            ("train", f"train_{what}", "dot"),
            ("validation", f"val_{what}", "solid"),
        )
    ]
    longest = int(epochs["epoch"].max()) if len(epochs) else 1
    layout = layout_of(title, longest, 250, rate)
    if best_epoch is not None:
        line = {"color": "rgba(128,128,128,0.6)", "width": 1}
        at = {"x0": best_epoch, "x1": best_epoch, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain"}
        layout["shapes"] = [{"type": "line", "line": line, **at}]
    return {"data": lines, "layout": layout}
