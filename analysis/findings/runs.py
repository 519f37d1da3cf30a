"""Several runs in one frame, one row each: what was tried, the cost, the winner (docs/reference/frames.md)."""

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from analysis.findings.cost import cost_of
from analysis.findings.excess import chosen_among
from analysis.frames.columns import RUNS, SETTINGS, dtypes
from analysis.frames.results import frame_of, read, trials
from analysis.frames.select import Selection, select, why_unfinished
from analysis.frames.snapshot import Snapshot, Source
from analysis.frames.snapshot.rights import validation_labels
from analysis.statistics import wilson
from trainable.records.rows import RATE_COLUMNS, Status

ENDS: Final = [status.value for status in Status if status.has_ended]


def compare(runs: Sequence[Source]) -> pd.DataFrame:
    """One row per run, in the order given: what was tried, the cost, the winner, and the test result if there is one.

    Raises:
        RequestError: one of them is not a run folder, or has a damaged record.
    """
    return frame_of([_run(read(run)) for run in runs], dtypes(RUNS))


def _run(run: Snapshot) -> dict[str, Any]:
    config, frame = run.config, trials(run)
    selection, cost, openings = select(run), cost_of(run), run.openings
    won = selection.winner
    ends = frame["status"].value_counts()
    facts: dict[str, Any] = {
        "run": str(run.folder.path),
        "name": config.name,
        "target": config.data.target,
        "metric": config.metric.value,
        "method": config.search.method,
        "finished_sweep": why_unfinished(run) is None,
        "trials": len(frame),
        **{name: int(ends.get(name, 0)) for name in ENDS},
        "epochs": cost.epochs,
        "seconds": cost.seconds,
        "device_hours": cost.device_hours,
        "saved_seconds": cost.saved_seconds,
        "times_test_opened": len(openings),
    }
    if won is not None:
        row = frame.set_index("trial_id").loc[won.trial_id]
        facts |= {"winner": won.trial_id, "best_epoch": won.best.epoch}
        facts |= {name: row[name] for name in (*SETTINGS, *RATE_COLUMNS)}
        facts |= _of_winner(run, selection, won.best.val_accuracy)
    if openings and (result := openings[-1].result) is not None:
        ends_of = result.accuracy_interval
        facts |= {"test_images": result.images, "test_accuracy": result.accuracy}
        facts |= {"test_low": ends_of.low, "test_high": ends_of.high}
    return facts


def _of_winner(run: Snapshot, selection: Selection, accuracy: float) -> dict[str, Any]:
    """How the winner was chosen, and what its validation accuracy is worth, as `analysis select` reports it."""
    images, chosen = len(validation_labels(run)), chosen_among(run, selection)
    interval = chosen.interval or wilson(round(accuracy * images), images)
    return {
        "winner_ground": selection.ground,
        "validation_images": images,
        "val_excess": chosen.excess.excess if chosen.interval and chosen.excess else None,
        "val_low": interval.low,
        "val_high": interval.high,
    }
