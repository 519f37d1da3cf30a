"""What the report shows about each trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from analysis import plots, wording
from analysis.frames import results
from analysis.frames.select import Selection
from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.pages.page import figure_json
from analysis.statistics import Confusion, confusion
from trainable.errors import RequestError
from trainable.metric import Metric


@dataclass(frozen=True)
class Card:
    """What the report shows about one trial."""

    rank: int | None
    trial_id: str
    facts: dict[str, Any]
    """Its row of the trial frame; missing values are None."""
    value: str
    setting: str
    gap: str
    """Training minus validation accuracy at the best epoch."""
    loss: Markup | None
    accuracy: Markup | None
    matrix: Confusion | None
    no_matrix: str
    """Why there is no confusion matrix."""


def cards_of(
    run: Snapshot,
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    selection: Selection,
    settings: Sequence[str],
) -> list[Card]:
    """Trials best first, then those without a finished epoch in the order of suggestion."""
    place = {one.trial_id: rank for rank, one in enumerate(selection.ranked, start=1)}
    curves = dict(list(epochs.groupby("trial_id", sort=False)))
    rows = sorted(
        results.to_records(trials), key=lambda row: place.get(row["trial_id"], len(trials) + 1)
    )
    return [
        _card(
            run.by_id[row["trial_id"]],
            row,
            place.get(row["trial_id"]),
            curves.get(row["trial_id"]),
            selection.metric,
            settings,
        )
        for row in rows
    ]


def _card(
    trial: ReadTrial,
    row: dict[str, Any],
    rank: int | None,
    curve: pd.DataFrame | None,
    metric: Metric,
    settings: Sequence[str],
) -> Card:
    best_epoch = row["best_epoch"]
    matrix, no_matrix = _matrix(trial, best_epoch)
    return Card(
        rank=rank,
        trial_id=trial.trial_id,
        facts=row,
        value=wording.metric_value(metric, row[metric.value]),
        setting=wording.setting(row, settings),
        gap=wording.points(row["train_accuracy"] - row["val_accuracy"]) if best_epoch else "",
        loss=None if curve is None else figure_json(plots.loss_drawn(curve, best_epoch)),
        accuracy=None if curve is None else figure_json(plots.accuracy_drawn(curve, best_epoch)),
        matrix=matrix,
        no_matrix=no_matrix,
    )


def _matrix(trial: ReadTrial, best_epoch: int | None) -> tuple[Confusion | None, str]:
    """The confusion matrix of the best validation epoch, or why there is none."""
    if best_epoch is None:
        return None, "no epoch has finished"
    if not trial.record.has_predictions(best_epoch):
        return None, "the validation predictions of its best epoch were not kept"
    try:
        found = trial.record.predictions(best_epoch, ["label", "logit"])
    except RequestError as error:
        return None, str(error)
    return confusion(found["logit"].to_numpy(), found["label"].to_numpy()), ""


def winner_settings(run: Snapshot, winner: str | None) -> list[tuple[str, str]]:
    """Every setting that has an effect in the winner."""
    if winner is None:
        return []
    settings = run.by_id[winner].asked.settings.effective()
    return [(name, wording.setting_value(value)) for name, value in settings.items()]
