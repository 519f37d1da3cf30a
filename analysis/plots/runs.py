"""Several runs side by side. Each plot takes data frames and returns a figure."""

from collections.abc import Mapping
from typing import Final

import pandas as pd
import plotly.graph_objects as go

from analysis.plots.style import TEMPLATE, finish, heights, valued, whiskers
from analysis.wording import NARROW, is_rate, metric_name, percent
from trainable.metric import Metric
from trainable.show.colours import BLUE, PALETTE, VERMILION

DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def accuracies(runs: pd.DataFrame) -> go.Figure:
    """Each winner's validation accuracy (corrected for selection if that is known) and its test accuracy (if there is
    one), with 95 % confidence intervals."""
    figure = go.Figure()
    names = runs["name"].tolist()
    for kind, column, symbol, colour, aside in (
        ("validation", "val", "circle", BLUE, -0.12),
        ("test", "test", "diamond", VERMILION, 0.12),
    ):
        shown = runs[runs[f"{column}_accuracy"].notna()]
        value, low, high = (shown[f"{column}_{end}"] * 100 for end in ("accuracy", "low", "high"))
        if kind == "validation":
            value = value - shown["val_excess"].fillna(0) * 100
        figure.add_trace(
            go.Scatter(
                x=value.tolist(),
                y=[row + aside for row in shown.index],
                error_x=whiskers((high - value).tolist(), (value - low).tolist(), width=5),
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 10},
                name=kind,
                customdata=[
                    [name, percent(a), percent(b)]
                    for name, a, b in zip(
                        shown["name"], shown[f"{column}_low"], shown[f"{column}_high"], strict=True
                    )
                ],
                hovertemplate=(
                    f"%{{customdata[0]}}: {kind} %{{x:.2f}}{NARROW}%, "
                    "%{customdata[1]} to %{customdata[2]}<extra></extra>"
                ),
            )
        )
    figure.update_layout(template=TEMPLATE, height=110 + 44 * len(runs))
    figure.update_xaxes(title_text="accuracy of the winner", ticksuffix=f"{NARROW}%")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5]
    )
    return figure


def best_by_time(trials: Mapping[str, pd.DataFrame], metric: Metric) -> go.Figure:
    """Each run's best value so far by cumulative trial time, in the order in which trials ended."""
    figure, rate = go.Figure(), is_rate(metric)
    for place, (name, frame) in enumerate(trials.items()):
        known = valued(frame, metric).sort_values(["ended", "number"])
        best = known[metric.value]
        best = best.cummax() if metric.higher_is_better else best.cummin()
        colour = PALETTE[place % len(PALETTE)]
        figure.add_trace(
            go.Scatter(
                x=(known["seconds"].cumsum() / 3600).tolist(),
                y=heights(best, rate),
                mode="lines+markers",
                line={
                    "shape": "hv",
                    "color": colour,
                    "dash": DASHES[place % len(DASHES)],
                    "width": 2,
                },
                marker={"size": 5, "color": colour},
                name=name,
                hovertemplate=f"{name}: %{{y:.4g}} after %{{x:.2f}} h<extra></extra>",
            )
        )
    finish(figure, f"best {metric_name(metric)}", None, 340, rate)
    figure.update_xaxes(title_text="hours, summed over trials", rangemode="tozero")
    figure.update_layout(legend_traceorder="normal")
    return figure
