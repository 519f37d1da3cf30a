"""One trained model on one part of the split: calibration, curves, groups. Each plot returns a figure."""

import html
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from analysis.judgement import Judgement
from analysis.judgement.areas import Operating, RankingCurves
from analysis.plots.style import COLOURS, TEMPLATE, whiskers
from analysis.wording import NARROW

REFERENCE: Final[dict[str, Any]] = {"color": "rgba(128,128,128,0.7)", "width": 1, "dash": "dot"}
BAND: Final = "rgba(64,154,214,0.28)"  # visible on light and dark backgrounds; by eye
BIN_ROOM: Final = 0.8  # share of a bin's width that its bar takes; by eye
SHARE: Final = [-2, 102]  # percent, with room for the marks at both ends
ROOM: Final = 24  # pixels at the right, for half of the last tick's label; by eye
UNIT: Final = f"{NARROW}%"


def reliability(bins: pd.DataFrame, positive: str, part: str) -> go.Figure:
    """The share of positives by predicted probability, with Wilson intervals; below it, the images of each bin.

    `bins` has low, high, images, probability, share, share_low, share_high. `positive` names the class.
    """
    figure = go.Figure([_diagonal("perfect calibration"), _shares(bins, part), _counts(bins, part)])
    figure.update_layout(template=TEMPLATE, height=400, margin_r=ROOM)
    figure.update_xaxes(
        title_text=f"predicted probability of {html.escape(positive)}",
        ticksuffix=UNIT,
        range=SHARE,
        anchor="y2",
        dtick=20,
    )
    figure.update_layout(
        yaxis={
            "title_text": f"observed share of {html.escape(positive)}",
            "ticksuffix": UNIT,
            "range": SHARE,
            "domain": [0.32, 1],
        },
        yaxis2={
            "title_text": "images",
            "domain": [0, 0.2],
            "range": [0, 1.35 * max(bins["images"].max(), 1)],
            "showgrid": False,
            "nticks": 3,
            "automargin": True,
            "anchor": "x",
        },
    )
    return figure


def _shares(bins: pd.DataFrame, part: str) -> go.Scatter:
    """The share of positives in each bin, at its mean probability."""
    return go.Scatter(
        x=_percent(bins["probability"]),
        y=_percent(bins["share"]),
        error_y=whiskers(
            _percent(bins["share_high"] - bins["share"]),
            _percent(bins["share"] - bins["share_low"]),
            width=4,
        ),
        mode="markers",
        marker={"color": COLOURS[part], "size": 8},
        name="observed share, 95 % interval",
        meta={"role": part},
        customdata=bins[["images"]].to_numpy().tolist(),
        hovertemplate=(
            f"probability %{{x:.1f}}{UNIT}, share %{{y:.1f}}{UNIT} "
            "of %{customdata[0]:,} images<extra></extra>"
        ),
    )


def _counts(bins: pd.DataFrame, part: str) -> go.Bar:
    """How many images are in each bin."""
    return go.Bar(
        x=_percent((bins["low"] + bins["high"]) / 2),
        y=bins["images"].tolist(),
        width=_percent(BIN_ROOM * (bins["high"] - bins["low"])),
        marker={"color": COLOURS[part]},
        meta={"role": part},
        text=[f"{count:,}" for count in bins["images"]],
        textposition="outside",
        textfont={"size": 10},
        cliponaxis=False,
        showlegend=False,
        yaxis="y2",
        hovertemplate="%{y:,} images<extra></extra>",
    )


def roc(curves: RankingCurves, operating: Operating, part: str) -> go.Figure:
    """Recall by false positive rate, its band, and where threshold 0.5 lies."""
    figure = go.Figure(_diagonal("no skill"))
    _add_band(figure, curves.band, "recall")
    _add_curve(figure, curves.roc, "false_positive_rate", "recall", part)
    _add_operating(figure, operating.false_positive_rate, operating.recall, part)
    return _square(figure, "false positive rate", "recall (true positive rate)")


def precision_recall(
    curves: RankingCurves, operating: Operating, positive_share: float, part: str
) -> go.Figure:
    """Precision by recall, its band, and where threshold 0.5 lies."""
    no_skill = 100 * positive_share
    figure = go.Figure(_reference([0, 100], [no_skill, no_skill], "no skill"))
    _add_band(figure, curves.band, "precision")
    # precision is constant back to the previous recall, as average precision sums it
    _add_curve(figure, curves.precision_recall, "recall", "precision", part, shape="vh")
    if operating.precision is not None:
        _add_operating(figure, operating.recall, operating.precision, part)
    return _square(figure, "recall", "precision")


def groups(frame: pd.DataFrame, part: str) -> go.Figure:
    """Accuracy of an attribute's larger value minus that of the other, with intervals, most significant at the top.

    `frame` has attribute, difference, low, high (shares), differs.
    """
    shown = frame.iloc[::-1].assign(name=lambda rows: rows["attribute"].map(html.escape))
    figure = go.Figure()
    for differs, name, symbol in (
        (True, "significant (Holm)", "circle"),
        (False, "not significant", "circle-open"),
    ):
        rows = shown[shown["differs"] == differs]
        figure.add_trace(
            go.Scatter(
                x=_percent(rows["difference"]),
                y=rows["name"].tolist(),
                error_x=whiskers(
                    _percent(rows["high"] - rows["difference"]),
                    _percent(rows["difference"] - rows["low"]),
                    width=3,
                ),
                mode="markers",
                marker={"color": COLOURS[part], "symbol": symbol, "size": 8},
                name=name,
                meta={"role": part},
                hovertemplate=f"%{{y}}: %{{x:+.2f}}{NARROW}points<extra></extra>",
            )
        )
    figure.add_vline(0, line=REFERENCE)
    figure.update_layout(template=TEMPLATE, height=110 + 20 * len(shown))
    figure.update_xaxes(
        title_text="accuracy with minus accuracy without the attribute, percentage points"
    )
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=shown["name"].tolist(),
        tickfont={"size": 11},
        dtick=1,
        showgrid=False,
    )
    return figure


def judgement_figures(judgement: Judgement, positive: str) -> Iterator[tuple[str, str, go.Figure]]:
    """Name, title and figure of every plot of a judgement; `positive` names class 1."""
    part = judgement.part
    bins = judgement.calibration.frame()
    yield "reliability", "Calibration", reliability(bins, positive, part)
    ranking, curves = judgement.ranking, judgement.curves
    if ranking is not None and curves is not None:
        yield "roc", "ROC curve", roc(curves, ranking.operating, part)
        share = ranking.positive_share
        drawn = precision_recall(curves, ranking.operating, share, part)
        yield "precision-recall", "Precision and recall", drawn
    if judgement.groups is not None and judgement.groups.each:
        yield "groups", "Accuracy within groups", groups(judgement.groups.frame(), part)


# ---------------------------------------------------------------- parts of them


def _percent(shares: "pd.Series[float]") -> list[float]:
    return [round(100 * float(share), 3) for share in shares]


def _words(column: str) -> str:
    return column.replace("_", " ")


def _reference(x: list[float], y: list[float], name: str) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line=REFERENCE, name=name, hoverinfo="skip")


def _diagonal(name: str) -> go.Scatter:
    return _reference([0, 100], [0, 100], name)


def _add_band(figure: go.Figure, band: pd.DataFrame, what: str) -> None:
    """Fill the area between the lower and the upper end."""
    if band.empty:
        return
    places, there = _percent(band["place"]), _percent(band[f"{what}_low"])
    figure.add_trace(
        go.Scatter(
            x=places + places[::-1],
            y=there + _percent(band[f"{what}_high"])[::-1],
            fill="toself",
            fillcolor=BAND,
            mode="none",
            name="pointwise 95 % band",
            hoverinfo="skip",
        )
    )


def _add_curve(
    figure: go.Figure, curve: pd.DataFrame, x: str, y: str, part: str, shape: str = "linear"
) -> None:
    """Column `y` of `curve` by column `x`, both shares; its column `threshold` is shown on hover."""
    said = f"{_words(x)} %{{x:.1f}}{UNIT}, {_words(y)} %{{y:.1f}}{UNIT}"
    figure.add_trace(
        go.Scatter(
            x=_percent(curve[x]),
            y=_percent(curve[y]),
            mode="lines",
            line={"color": COLOURS[part], "width": 2, "shape": shape},
            name=part,
            meta={"role": part},
            customdata=[[round(float(threshold), 4)] for threshold in curve["threshold"]],
            hovertemplate=f"{said} at threshold %{{customdata[0]:.3f}}<extra></extra>",
        )
    )


def _add_operating(figure: go.Figure, x: float, y: float, part: str) -> None:
    figure.add_trace(
        go.Scatter(
            x=[100 * x],
            y=[100 * y],
            mode="markers",
            marker={"color": COLOURS[part], "symbol": "diamond", "size": 12},
            name="threshold 0.5",
            meta={"role": part},
            hovertemplate=f"threshold 0.5: %{{x:.1f}}{UNIT}, %{{y:.1f}}{UNIT}<extra></extra>",
        )
    )


def _square(figure: go.Figure, x: str, y: str) -> go.Figure:
    figure.update_layout(template=TEMPLATE, height=400, margin_r=ROOM)
    figure.update_xaxes(title_text=x, ticksuffix=UNIT, range=SHARE, dtick=20)
    figure.update_yaxes(title_text=y, ticksuffix=UNIT, range=SHARE, dtick=20)
    return figure
