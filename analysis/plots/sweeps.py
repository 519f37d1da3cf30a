"""A sweep as a whole: its history, and where its time went. Each plot takes a data frame and returns a figure."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.findings.effects.model import LISTED
from analysis.plots.style import (
    COLOURS,
    TEMPLATE,
    by_role,
    finish,
    heights,
    in_order,
    marker_of,
    role_of,
    value_said,
    valued,
    winner_last,
)
from analysis.wording import NARROW, is_rate, metric_name, setting, setting_value
from trainable.metric import Metric

BINS: Final = 6  # bins of a learning rate that is drawn from a range; by eye


def history(
    trials: pd.DataFrame, metric: Metric, settings: Sequence[str], winner: str | None
) -> go.Figure:
    """The best value of each trial in the order of suggestion, and the best so far as a step line."""
    known = valued(trials, metric).sort_values("number")
    figure = go.Figure()
    values = known[metric.value]
    best = values.cummax() if metric.higher_is_better else values.cummin()
    figure.add_trace(
        go.Scatter(
            x=known["number"].tolist(),
            y=heights(best, is_rate(metric)),
            mode="lines",
            line={"shape": "hv", "color": COLOURS["winner"], "width": 1.5},
            name="best so far",
            meta={"role": "winner"},
            hoverinfo="skip",
        )
    )
    for role, rows in by_role(known, winner):
        figure.add_trace(
            go.Scatter(
                x=[row["number"] for row in rows],
                y=heights((row[metric.value] for row in rows), is_rate(metric)),
                mode="markers",
                marker=marker_of(role),
                name=role,
                meta={"role": role},
                customdata=[[row["trial_id"], setting(row, settings)] for row in rows],
                hovertemplate=(
                    f"%{{customdata[0]}} · {role}<br>%{{customdata[1]}}<br>{value_said(metric)}<extra></extra>"
                ),
            )
        )
    finish(figure, metric_name(metric), None, 320, rate=is_rate(metric))
    figure.update_xaxes(title_text="suggestion")
    return figure


def timeline(trials: pd.DataFrame, settings: Sequence[str], winner: str | None) -> go.Figure:
    """When each trial ran; one row per slot (a worker process), a trial being in the row of the slot it ended on."""
    known = trials[trials["started"].notna() & trials["ended"].notna()].copy()
    known["slot"] = known["slot"].fillna(known["host"]).fillna("")
    slots = sorted(known["slot"].unique())
    figure = go.Figure()
    told: set[str] = set()
    for row in winner_last(known, winner):
        role = role_of(row, winner)
        figure.add_trace(
            go.Bar(
                base=[row["started"].isoformat()],
                x=[(row["ended"] - row["started"]).total_seconds() * 1000],
                y=[row["slot"]],
                orientation="h",
                marker={
                    "color": COLOURS[role],
                    "line": {"width": 1, "color": "rgba(255,255,255,0.7)"},
                },
                name=role,
                legendgroup=role,
                showlegend=role not in told,
                meta={"role": role},
                hovertemplate=f"{row['trial_id']} · {row['status']}<br>{setting(row, settings)}<extra></extra>",
            )
        )
        told.add(role)
    figure.update_layout(
        template=TEMPLATE, height=110 + 26 * len(slots), barmode="overlay", bargap=0.25
    )
    figure.update_xaxes(type="date", title_text="time (UTC)")
    figure.update_yaxes(categoryorder="array", categoryarray=slots[::-1], showgrid=False)
    return figure


def heat_map(trials: pd.DataFrame, metric: Metric) -> go.Figure:
    """The best value by strategy and learning rate; rates drawn from a range are put into logarithmic bins."""
    known = valued(trials, metric).copy()
    strategies = in_order("strategy", known["config/strategy"].unique())
    rates = sorted(known["config/lr"].unique())
    if len(rates) > LISTED + 2:
        edges = np.geomspace(rates[0], rates[-1], BINS + 1)
        place = np.clip(np.digitize(known["config/lr"], edges) - 1, 0, BINS - 1)
        labels = [f"{edges[n]:.1e} to {edges[n + 1]:.1e}" for n in range(BINS)]
    else:
        place = np.array([rates.index(rate) for rate in known["config/lr"]], dtype=int)
        labels = [setting_value(rate) for rate in rates]
    known["place"] = place
    grouped = known.groupby(["config/strategy", "place"])[metric.value]
    best = grouped.max() if metric.higher_is_better else grouped.min()
    counts = grouped.size()
    rate = is_rate(metric)

    def cell(source: "pd.Series[Any]", strategy: str, column: int) -> float | None:
        return float(source[strategy, column]) if (strategy, column) in source.index else None

    table = [[cell(best, s, n) for n in range(len(labels))] for s in strategies]
    shown = [[None if v is None else heights([v], rate)[0] for v in row] for row in table]
    text = [
        ["" if v is None else f"{v:.2f}{NARROW}%" if rate else f"{v:.4f}" for v in row]
        for row in shown
    ]
    trials_there = [[cell(counts, s, n) or 0 for n in range(len(labels))] for s in strategies]
    figure = go.Figure(
        go.Heatmap(
            z=shown,
            x=labels,
            y=strategies,
            text=text,
            texttemplate="%{text}",
            customdata=trials_there,
            colorscale="Cividis",
            reversescale=not metric.higher_is_better,
            showscale=False,
            xgap=3,
            ygap=3,
            hovertemplate="%{y}, lr %{x}: %{text}, best of %{customdata:.0f}<extra></extra>",
        )
    )
    figure.update_layout(template=TEMPLATE, height=90 + 46 * len(strategies))
    figure.update_xaxes(title_text="learning rate", type="category", showgrid=False)
    figure.update_yaxes(showgrid=False, type="category")
    return figure
