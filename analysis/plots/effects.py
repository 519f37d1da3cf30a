"""Differences between values of settings, with confidence intervals."""

from typing import Final

import plotly.graph_objects as go

from analysis.findings.effects.claims import Effect, Mattered, Verdict
from analysis.plots.style import COLOURS, TEMPLATE, heights, whiskers
from analysis.wording import NARROW, is_rate, metric_name, setting_value
from trainable.metric import Metric

DRAWN: Final = {
    Verdict.BETTER: ("winner", "significant"),
    Verdict.NO_DIFFERENCE: ("validation", "no difference that matters"),
    Verdict.CANT_TELL: ("pruned", "not significant"),
}
"""Colour by role and name in the legend."""


def effects(found: Mattered, metric: Metric) -> go.Figure:
    """The lead of the first of each two compared values, with its 95 % confidence interval, coloured by verdict."""
    figure, rate = go.Figure(), is_rate(metric)
    for verdict, (role, name) in DRAWN.items():
        group = [effect for effect in found.effects if effect.verdict is verdict]
        if not group:
            continue
        middle, low, high = (
            heights((getattr(effect, part) for effect in group), rate)
            for part in ("difference", "low", "high")
        )
        sides = whiskers(
            [b - a for a, b in zip(middle, high, strict=True)],
            [a - b for a, b in zip(middle, low, strict=True)],
            6,
        )
        unit = f"{NARROW}points" if rate else ""
        figure.add_trace(
            go.Scatter(
                x=middle,
                y=[_named(effect) for effect in group],
                mode="markers",
                error_x=sides,
                marker={"color": COLOURS[role], "size": 9},
                name=name,
                meta={"role": role},
                hovertemplate=f"%{{y}}: %{{x:.3g}}{unit}<extra></extra>",
            )
        )
    named = [_named(effect) for effect in found.effects]
    figure.add_vline(x=0, line={"color": "rgba(128,128,128,0.5)", "width": 1})
    figure.update_layout(template=TEMPLATE, height=110 + 30 * len(named))
    figure.update_xaxes(
        title_text=f"lead of the first value in {metric_name(metric)} {found.moment.said}"
        + (", percentage points" if rate else "")
    )
    figure.update_yaxes(categoryorder="array", categoryarray=named[::-1], showgrid=False)
    return figure


def _named(effect: Effect) -> str:
    return f"{effect.name}: {setting_value(effect.first)} vs. {setting_value(effect.second)}"
