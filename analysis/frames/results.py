"""Tidy frames of trials, epochs, predictions and decisions, as Parquet and CSV. Also for a run that is under way."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames.columns import (
    DECISIONS,
    EPOCHS,
    PREDICTIONS,
    SETTINGS,
    TIME,
    TRIALS,
    dtypes,
)
from analysis.frames.select import select
from analysis.frames.snapshot import ReadTrial, RunPath, Snapshot, Source
from analysis.frames.snapshot.collector import paused_collector
from analysis.statistics import sigmoid
from analysis.wording import SECONDARY
from sweep.request.config import SweepConfig
from sweep.request.open_run import open_run
from sweep.search.asha import Decision
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import write_atomically
from trainable.records.rows import (
    FROZEN_COLUMNS,
    RATE_COLUMNS,
    ROW_COLUMNS,
    seconds_saved,
    with_saved_seconds,
)


def load_config(run: RunPath) -> SweepConfig:
    """The configuration of the run in folder `run`, as resolved.

    Raises:
        RequestError: as sweep.request.open_run.
    """
    return open_run(run).config


def read(run: Source) -> Snapshot:
    """Read a run's records once. Passing the result to the functions below makes all of them refer to one moment.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    return Snapshot.of(run)


@paused_collector()
def trials(run: Source) -> pd.DataFrame:
    """One row per trial in the order of suggestion; losses and rates are those of its best epoch by validation.

    A setting that has no effect in a trial (such as momentum under Adam) is missing there, as is what is not known yet.
    Seconds are those of all recorded epochs; memory is the peak in bytes.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    snapshot = read(run)
    metric, done = snapshot.config.metric, work(snapshot)
    kinds = dtypes(TRIALS)
    unknown = dict.fromkeys(kinds)
    rows = [tuple((unknown | _trial(trial, metric, done)).values()) for trial in snapshot.trials]
    columns = zip(*rows, strict=True) if rows else ((),) * len(kinds)
    return _typed(dict(zip(kinds, columns, strict=True)), kinds)


def epochs(run: Source) -> pd.DataFrame:
    """One row per finished epoch, trials in the order of suggestion.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    snapshot = read(run)
    counts = [len(trial.epochs) for trial in snapshot.trials]
    which = {
        "trial_id": np.repeat([trial.trial_id for trial in snapshot.trials], counts),
        "number": np.repeat([trial.asked.number for trial in snapshot.trials], counts),
    }
    columns = {name: snapshot.epochs.table[name] for name in ROW_COLUMNS}
    return _typed(which | columns, dtypes(EPOCHS))


def winner(run: Source) -> str | None:
    """The trial that wins by validation, the same as for `analysis select` and `analysis test`; None if there is none.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    found = select(run).winner
    return found.trial_id if found is not None else None


def predictions(run: Source, trial_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The trials' predictions of the validation images at their best epoch, one row per trial and image.

    Of all trials whose predictions are on record, or only of `trial_ids`: 3,000 images give 3,000 rows per trial.

    Raises:
        RequestError: there is no run folder, a record is damaged, or a trial of `trial_ids` has no predictions.
    """
    snapshot = read(run)
    metric, found = snapshot.config.metric, []
    for trial_id in snapshot.by_id if trial_ids is None else trial_ids:
        trial = snapshot.by_id.get(trial_id)
        best = trial.best(metric) if trial else None
        if trial is None or best is None or not trial.record.has_predictions(best.epoch):
            if trial_ids is None:
                continue
            raise RequestError(
                "a trial must have predictions on record, but "
                f"{trial_id} of {snapshot.folder.path} has none"
            )
        frame = trial.record.predictions(best.epoch)
        probability = sigmoid(frame["logit"].to_numpy(np.float64))
        found.append(frame.assign(trial_id=trial_id, epoch=best.epoch, probability=probability))
    columns = dtypes(PREDICTIONS)
    return (pd.concat(found, ignore_index=True) if found else frame_of([], columns))[
        list(columns)
    ].astype(columns)


def decisions(run: Source) -> pd.DataFrame:
    """One row per decision of ASHA, in the order in which they were taken; values in the metric's own sign.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    snapshot = read(run)
    metric = snapshot.config.metric
    rows = [
        {
            "sequence": one.sequence,
            "trial_id": one.trial_id,
            "epoch": one.rung,
            "rung_of": _rung_of(snapshot, one),
            "value": metric.score(one.score),
            "cutoff": None if one.cutoff is None else metric.score(one.cutoff),
            "verdict": one.verdict,
        }
        for one in snapshot.decisions
    ]
    return frame_of(rows, dtypes(DECISIONS))


def _rung_of(run: Snapshot, decision: Decision) -> str:
    """The trials that this one was compared with: "all", or a strategy."""
    asha = run.config.asha
    if asha is None or asha.rungs_of == "all":
        return "all"
    return run.by_id[decision.trial_id].asked.settings.strategy


def _trial(trial: ReadTrial, metric: Metric, done: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the trial frame; `done` is the frozen work of the whole run, whose pace is used for every trial."""
    asked, status, epochs, best = trial.asked, trial.status(), trial.epochs, trial.best(metric)
    facts: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "number": asked.number,
        "status": status.status.value,
        "reason": status.reason or None,
        "origin": asked.origin,
        "epochs": len(epochs),
        "seconds": float(sum(epochs.column("seconds"))),
        "attempt": status.attempt,
        "host": status.host or None,
        "device": status.device or None,
        "slot": status.slot or None,
        "started": status.started or None,
        "ended": status.ended or None,
    }
    facts |= {f"config/{name}": value for name, value in asked.settings.effective().items()}
    if best is not None:
        facts |= {"best_epoch": best.epoch} | {name: getattr(best, name) for name in RATE_COLUMNS}
        facts["gpu_memory_bytes"] = max(epochs.column("gpu_memory_bytes"))
        facts |= {name: sum(epochs.column(name)) for name in FROZEN_COLUMNS}
        facts["saved_seconds"] = seconds_saved(facts["saved_multiply_adds"], done)
        facts["skipped_steps"] = sum(epochs.column("skipped_steps"))
    return facts


def _typed(columns: Mapping[str, Any], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A frame of columns with these dtypes, in their order; times come as ISO 8601."""
    return pd.DataFrame({name: _column(columns[name], kind) for name, kind in dtypes.items()})


def _column(values: Any, dtype: str) -> Any:
    if dtype != TIME:
        return pd.array(values, dtype=dtype)
    return pd.to_datetime(pd.array(values, dtype="string"), utc=True, format="ISO8601").as_unit(
        "us"
    )


def frame_of(rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A frame of `rows` with exactly these columns and dtypes, also if there are no rows."""
    return pd.DataFrame(rows, columns=list(dtypes), dtype=object).astype(dict(dtypes))


def varied(frame: pd.DataFrame) -> list[str]:
    """The settings in which the trials of a trial frame differ; strategy and learning rate if they don't differ."""
    names = [name.removeprefix("config/") for name in SETTINGS if frame[name].nunique() > 1]
    if any(name not in SECONDARY for name in names):
        return names
    return ["strategy", "lr", *names]


def work(run: Source) -> dict[str, Any]:
    """The frozen work of all trials, and what sharing saved; see trainable.records.rows.frozen_work."""
    table = read(run).epochs.table
    return with_saved_seconds({name: sum(table[name].to_pylist(), 0.0) for name in FROZEN_COLUMNS})


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain JSON values: missing values are None, times are ISO 8601."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def read_frame(path: RunPath) -> pd.DataFrame:
    """A frame of trials or epochs from the Parquet or CSV file that `write` made, exactly as it was.

    Raises:
        RequestError: the file is not one of these.
    """
    path = Path(path)
    columns = {"trials": TRIALS, "epochs": EPOCHS}.get(path.stem)
    if columns is None or path.suffix not in (".parquet", ".csv"):
        raise RequestError(
            f"a frame's file must be trials or epochs, as .parquet or .csv, but it is {path.name}"
        )
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    kinds = dtypes(columns)
    times = [name for name, kind in kinds.items() if kind == TIME]
    return pd.read_csv(
        path,
        dtype={name: kind for name, kind in kinds.items() if name not in times},
        parse_dates=times,
        keep_default_na=False,
        na_values=[""],
    ).astype(kinds)


def write(run: Source) -> list[Path]:
    """Write both frames into the run's results folder, as Parquet and CSV; returns the paths.

    Raises:
        RequestError: there is no run folder, or a record is damaged.
    """
    snapshot = read(run)
    frames = {"trials": trials(snapshot), "epochs": epochs(snapshot)}
    folder = snapshot.folder.results
    folder.mkdir(exist_ok=True)
    written = []
    for name, frame in frames.items():
        buffer = BytesIO()
        frame.to_parquet(buffer, index=False)
        text = frame.to_csv(index=False, lineterminator="\n")
        for suffix, content in (("parquet", buffer.getvalue()), ("csv", text.encode())):
            path = folder / f"{name}.{suffix}"
            write_atomically(path, content)
            written.append(path)
    return written
