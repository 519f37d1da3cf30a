"""What is drawn of a search is what its frames hold."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.pages.page import figure_json
from analysis.plots.curves import accuracy, accuracy_drawn, loss, loss_drawn
from analysis.plots.search import ASIDE, BELOW, costs, parallel, rungs
from trainable.metric import Metric

METRIC = Metric.VAL_ACCURACY
TRIALS = pd.DataFrame(
    {
        "trial_id": ["a", "b", "c", "d"],
        "status": ["finished", "pruned", "finished", "diverged"],
        "origin": ["search"] * 4,
        "number": range(4),
        "val_accuracy": [0.9, 0.6, 0.8, 0.5],
        "config/strategy": pd.array(["block5", "head", "full", "head"], dtype="string"),
        "config/lr": [1e-4, 1e-3, 1e-2, 1e-4],
        "config/momentum": [np.nan, 0.9, np.nan, 0.8],
    }
)
DECISIONS = pd.DataFrame(
    {
        "sequence": range(1, 6),
        "trial_id": ["c", "b", "a", "c", "a"],
        "epoch": [1, 1, 1, 3, 3],
        "rung_of": ["all"] * 5,
        "value": [0.7, 0.6, 0.75, 0.8, 0.9],
        "cutoff": [np.nan, 0.7, 0.68, np.nan, 0.8],
        "verdict": ["go on", "stop", "go on", "go on", "go on"],
    }
)


def test_every_decision_stands_at_its_rung_in_the_order_of_arrival_with_its_cutoff() -> None:
    figure = rungs(DECISIONS, TRIALS, METRIC, ["strategy"], "a")
    points = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    assert list(points["stopped"].y) == [60.0]
    assert sorted(points["continued"].y) == pytest.approx([70, 80])
    assert sorted(points["winner"].y) == pytest.approx([75, 90])
    first = [points["continued"].x[0], points["stopped"].x[0], points["winner"].x[0]]
    assert first == sorted(first) and all(abs(x) < 0.5 for x in first)
    assert all(0.5 < trace.x[-1] < 1.5 for trace in (points["continued"], points["winner"]))
    cutoffs = [list(trace.y) for trace in figure.data if trace.mode == "lines"]
    assert cutoffs == [pytest.approx([70, 68]), pytest.approx([80])]
    assert figure.layout.xaxis.ticktext == ("1", "3")


def test_rungs_of_strategies_stand_side_by_side_each_with_its_own_cutoffs() -> None:
    of = DECISIONS.assign(
        rung_of=["head", "block5", "head", "head", "head"],
        cutoff=[np.nan, np.nan, 0.7, np.nan, 0.8],
        verdict="go on",
    )
    figure = rungs(of, TRIALS, METRIC, ["strategy"], None)
    assert figure.layout.xaxis.ticktext == ("1<br>head", "1<br>block5", "3<br>head")
    (points,) = [trace for trace in figure.data if trace.name == "continued"]
    assert [round(x) for x in points.x] == [0, 1, 0, 2, 2]
    lines = [(trace.x, trace.y) for trace in figure.data if trace.mode == "lines"]
    assert [list(y) for _, y in lines] == [pytest.approx([70]), [], pytest.approx([80])]
    assert all(round(x) == place for place, (xs, _) in enumerate(lines) for x in xs)


def test_a_line_a_trial_goes_through_its_settings_to_its_value() -> None:
    figure = parallel(TRIALS, METRIC, ["strategy", "lr", "momentum"], "a")
    lines, close = {}, partial(pytest.approx, abs=ASIDE)
    for trace in figure.data:
        for start in range(0, len(trace.x), 5):
            assert trace.x[start + 4] is None
            lines[trace.text[start].split(" ")[0]] = list(trace.y[start : start + 4])
    assert lines["a"] == close([0.5, 0, BELOW, 1])  # head, block5, full; 1e-4 to 1e-2
    assert lines["b"] == close([0, 0.5, 1, 0.25])
    assert lines["c"] == close([1, 1, BELOW, 0.75])
    assert lines["d"] == close([0, 0, 0, 0])
    assert figure.layout.xaxis.ticktext == ("strategy", "lr", "momentum", "validation accuracy")


def test_a_range_is_drawn_by_its_logarithm() -> None:
    many = pd.concat([TRIALS] * 3, ignore_index=True)
    many["trial_id"] = [f"t{n}" for n in range(12)]
    many["config/lr"] = np.geomspace(1e-5, 1e-2, 12)
    figure = parallel(many, METRIC, ["lr"], None)
    found = {
        trace.text[start].split(" ")[0]: trace.y[start]
        for trace in figure.data
        for start in range(0, len(trace.x), 3)
    }
    assert [found[f"t{n}"] for n in range(12)] == pytest.approx(np.linspace(0, 1, 12))


def test_costs_are_hours_and_nothing_is_drawn_of_nothing() -> None:
    figure = costs({"trained": 7200.0, "saved by pruning": 1800.0, "lost to faults": 0.0})
    (bars,) = figure.data
    assert list(bars.y) == ["saved by pruning", "trained"]
    assert list(bars.x) == [0.5, 2.0]


@pytest.mark.parametrize(("checked", "drawn"), [(loss, loss_drawn), (accuracy, accuracy_drawn)])
@pytest.mark.parametrize("best_epoch", [2, None])
def test_a_trials_curves_are_on_the_page_as_plotly_checks_them(
    checked: Callable[..., go.Figure],
    drawn: Callable[..., dict[str, Any]],
    best_epoch: int | None,
) -> None:
    columns = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    epochs = pd.DataFrame({"epoch": [1, 2, 3], **{key: [0.7, 0.6, 0.65] for key in columns}})
    found = json.loads(figure_json(drawn(epochs, best_epoch)))
    assert found == json.loads(figure_json(checked(epochs, best_epoch)))
    assert [line["name"] for line in found["data"]] == ["train", "validation"]
