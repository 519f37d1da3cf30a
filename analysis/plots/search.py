"""The search: decisions of ASHA, the settings of every trial side by side, and where the time went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.findings.effects.model import LISTED, LOG_SPAN
from analysis.plots.style import (
    COLOURS,
    CROWD,
    FADED,
    GOLDEN,
    TEMPLATE,
    by_role,
    finish,
    heights,
    in_order,
    marker_of,
    value_said,
    valued,
)
from analysis.wording import (
    NO_VALUE,
    is_rate,
    metric_name,
    metric_value,
    setting,
    setting_value,
)
from trainable.metric import Metric
from trainable.show.wording import duration

VERDICTS: Final = {"go on": "finished", "stop": "pruned"}
SPREAD: Final = 0.7  # share of the room between two rungs that trials take; by eye
ASIDE: Final = 0.06  # the width over which lines through the same value are spread; by eye
BELOW: Final = -0.14
"""The place of a setting that has no effect in a trial; values lie between 0 and 1; by eye."""


def rungs(
    decisions: pd.DataFrame,
    trials: pd.DataFrame,
    metric: Metric,
    settings: Sequence[str],
    winner: str | None,
) -> go.Figure:
    """Each decision of ASHA: the trials at a rung from left to right in order of arrival, and the cutoff for each.

    If strategies have their own rungs, these are side by side at each epoch.
    """
    rate, figure = is_rate(metric), go.Figure()
    known = decisions.copy()
    whose = in_order("strategy", known["rung_of"].unique())
    pairs = known[["epoch", "rung_of"]].drop_duplicates().itertuples(index=False, name=None)
    places = sorted(pairs, key=lambda rung: (rung[0], whose.index(rung[1])))
    grouped = known.groupby(["epoch", "rung_of"])["epoch"]
    aside = SPREAD * ((grouped.cumcount() + 0.5) / grouped.transform("size") - 0.5)
    known["rung"] = list(map(places.index, zip(known["epoch"], known["rung_of"], strict=True)))
    known["x"] = known["rung"] + aside
    rows = trials.set_index("trial_id")
    for number in range(len(places)):
        limits = known[(known["rung"] == number) & known["cutoff"].notna()]
        figure.add_trace(_cutoffs(limits, metric, showlegend=number == 0))
    winners = known["trial_id"] == winner
    groups = [(verdict, known[(known["verdict"] == verdict) & ~winners]) for verdict in VERDICTS]
    for name, group in [*groups, ("winner", known[winners])]:
        role = VERDICTS.get(name, "winner")
        figure.add_trace(
            go.Scatter(
                x=group["x"].tolist(),
                y=heights(group["value"], rate),
                mode="markers",
                marker=marker_of(role),
                name={"go on": "continued", "stop": "stopped"}.get(name, name),
                meta={"role": role},
                customdata=[
                    [one, setting(rows.loc[one].to_dict(), settings)] for one in group["trial_id"]
                ],
                hovertemplate=f"%{{customdata[0]}}<br>%{{customdata[1]}}<br>{value_said(metric)}<extra></extra>",
            )
        )
    finish(figure, f"best {metric_name(metric)} so far", None, 340, rate)
    figure.update_xaxes(
        title_text="rung (epoch); trials in order of arrival",
        tickvals=list(range(len(places))),
        ticktext=[str(epoch) if of == "all" else f"{epoch}<br>{of}" for epoch, of in places],
        range=[-0.5, max(len(places), 1) - 0.5],
    )
    return figure


def _cutoffs(limits: pd.DataFrame, metric: Metric, showlegend: bool) -> go.Scatter:
    """The line of the values that trials at one rung had to reach, in order of arrival."""
    return go.Scatter(
        x=limits["x"].tolist(),
        y=heights(limits["cutoff"], is_rate(metric)),
        mode="lines",
        line={"shape": "hvh", "color": COLOURS["diverged"], "width": 1.2},
        name="cutoff",
        legendgroup="cutoff",
        showlegend=showlegend,
        meta={"role": "diverged"},
        hovertemplate=f"cutoff {value_said(metric)}<extra></extra>",
    )


def parallel(
    trials: pd.DataFrame, metric: Metric, settings: Sequence[str], winner: str | None
) -> go.Figure:
    """One line per trial, through its settings to its value; a setting that has no effect in it is at the bottom."""
    known = valued(trials, metric).reset_index(drop=True)
    reached = known[metric.value]
    span = (float(reached.max() - reached.min()) or 1.0) if len(known) else 1.0
    low = float(reached.min()) if len(known) else 0.0
    axes = [
        *(_axis(name, known[f"config/{name}"], known["number"]) for name in settings),
        Axis(
            metric_name(metric),
            (reached - low) / span,
            [0.0, 0.5, 1.0],
            [metric_value(metric, low + share * span) for share in (0, 0.5, 1)],
        ),
    ]
    places = pd.DataFrame({number: axis.places for number, axis in enumerate(axes)})
    places["trial_id"] = known["trial_id"]
    lines = places.set_index("trial_id")
    figure, crowd = go.Figure(), len(known) > CROWD
    for role, rows in by_role(known, winner):
        x: list[float | None] = []
        y: list[float | None] = []
        said: list[str] = []
        for row in rows:  # one trace per role: None separates its lines
            value = metric_value(metric, row[metric.value])
            words = f"{row['trial_id']} · {role}<br>{setting(row, settings)}<br>{value}"
            x += [*map(float, range(len(axes))), None]
            y += [*lines.loc[[row["trial_id"]]].iloc[0].tolist(), None]
            said += [words] * (len(axes) + 1)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines+markers",
                line={
                    "color": COLOURS[role],
                    "width": 3 if role == "winner" else 1 if crowd else 1.4,
                },
                marker={"color": COLOURS[role], "size": 5},
                opacity=FADED.get(role, 0.5 if crowd else 0.8),
                name=role,
                meta={"role": role},
                text=said,
                hovertemplate="%{text}<extra></extra>",
            )
        )
    _add_axes(figure, axes)
    return figure


@dataclass(frozen=True)
class Axis:
    """One of the vertical axes: where trials cross it, between 0 and 1, and its tick labels."""

    name: str
    places: "pd.Series[float]"
    ticks: list[float]
    texts: list[str]


def _axis(name: str, column: "pd.Series[Any]", number: "pd.Series[int]") -> Axis:
    """Listed values start with the first at the bottom, with lines through the same value side by side; a range is
    linear, or logarithmic if it is wide."""
    aside = (number.astype(float) * GOLDEN % 1 - 0.5) * ASIDE
    present = column.dropna()
    if present.dtype.kind in "if" and present.nunique() > LISTED:
        numbers = column.astype(float)
        wide = present.min() > 0 and present.max() > LOG_SPAN * present.min()
        place = np.log10(numbers) if wide else numbers
        low, span = float(place.min()), float(place.max() - place.min())
        places = pd.Series((place - low) / span)
        ticks = [0.0, 0.5, 1.0]
        values = [low + share * span for share in ticks]
        texts = [setting_value(float(10**value if wide else value)) for value in values]
    else:
        listed = in_order(name, present.unique())
        ticks = [n / max(len(listed) - 1, 1) for n in range(len(listed))]
        places = column.map(dict(zip(listed, ticks, strict=True))).astype(float) + aside
        texts = [setting_value(value) for value in listed]
    if column.isna().any():
        ticks, texts = [BELOW, *ticks], [NO_VALUE, *texts]
    return Axis(name, places.fillna(BELOW + aside), ticks, texts)


def _add_axes(figure: go.Figure, axes: Sequence[Axis]) -> None:
    """Vertical axes side by side, each with its name below it and its tick labels beside it."""
    for number, axis in enumerate(axes):
        figure.add_vline(x=number, line={"color": "rgba(128,128,128,0.5)", "width": 1})
        for tick, text in zip(axis.ticks, axis.texts, strict=True):
            figure.add_annotation(
                x=number, y=tick, text=text, showarrow=False, xanchor="left", xshift=5, yshift=8
            )
    figure.update_layout(template=TEMPLATE, height=360)
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[axis.name for axis in axes],
        range=[-0.15, len(axes) - 0.4],
        showline=False,
        ticks="",
    )
    figure.update_yaxes(visible=False, range=[BELOW - 0.08, 1.12])


def costs(seconds: Mapping[str, float]) -> go.Figure:
    """Hours of trials by status, and hours saved, the first at the top."""
    shown = {name: value for name, value in seconds.items() if value > 0}
    names = list(shown)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[shown[name] / 3600 for name in names],
            y=names,
            orientation="h",
            marker={
                "color": [
                    COLOURS["winner"] if name.startswith("saved") else COLOURS["validation"]
                    for name in names
                ]
            },
            text=[duration(shown[name]) for name in names],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(template=TEMPLATE, height=90 + 26 * len(names), bargap=0.35)
    figure.update_xaxes(
        title_text="hours, summed over trials",
        range=[0, max(shown.values(), default=1.0) / 3600 * 1.2],
    )
    figure.update_yaxes(showgrid=False)
    return figure
