"""Records → two tidy frames, one row a trial and one row an epoch; Parquet and CSV. Also for a run under way."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.wording import SECONDARY
from sweep import config as sweep_config
from sweep.config import SweepConfig
from sweep.ranking import best_row
from trainable.config import RequestError, TrialConfig
from trainable.files import write_atomically
from trainable.metric import Metric
from trainable.record import RunFolder, TrialRecord
from trainable.rows import RESULT_COLUMNS, Row, frozen_work

TEXT, WHOLE, REAL, TIME = "string", "Int64", "float64", "datetime64[us, UTC]"
BEST_COLUMNS: Final = RESULT_COLUMNS[1:-1]  # losses and rates; epoch is best_epoch, lr is a setting


def _setting_dtype(annotation: object) -> str:
    if annotation is float:
        return REAL
    return WHOLE if annotation in (int, int | None) else TEXT


SETTINGS: Final = {
    f"config/{name}": _setting_dtype(info.annotation)
    for name, info in TrialConfig.model_fields.items()
}
TRIAL_DTYPES: Final = {
    "trial_id": TEXT,
    "number": WHOLE,
    "status": TEXT,
    "reason": TEXT,
    "origin": TEXT,
    **SETTINGS,
    "best_epoch": WHOLE,
    **dict.fromkeys(BEST_COLUMNS, REAL),
    "epochs": WHOLE,
    "seconds": REAL,
    "gpu_memory_bytes": WHOLE,
    "frozen_images": WHOLE,
    "frozen_multiply_adds": WHOLE,
    "frozen_seconds": REAL,
    "saved_multiply_adds": WHOLE,
    "shared_images": WHOLE,
    "waited_seconds": REAL,
    "saved_seconds": REAL,
    "attempt": WHOLE,
    "host": TEXT,
    "device": TEXT,
    "slot": TEXT,
    "started": TIME,
    "ended": TIME,
}
_ROW_DTYPES: Final[Mapping[object, str]] = {float: REAL, int: WHOLE, str: TIME}
EPOCH_DTYPES: Final = {
    "trial_id": TEXT,
    "number": WHOLE,
    **{c.name: _ROW_DTYPES[c.type] for c in fields(Row) if c.name != "collapsed"},
}


def load_config(run: Path) -> SweepConfig:
    """The configuration of the run in folder `run`, as resolved.

    Raises:
        RequestError: no run folder, one of a newer format, or a damaged configuration.
    """
    folder = RunFolder(run)
    if not folder.manifest.is_file():
        raise RequestError(f"RUN must be a run folder, but {run} has no manifest.json")
    folder.read_manifest()
    return sweep_config.load_config(folder.config)


def trials(run: Path) -> pd.DataFrame:
    """One row a trial in the order of suggestion; losses and rates are those of its best validation epoch.

    A setting that does not act in a trial (momentum under Adam, say) is missing there, as is what is not known yet.
    Seconds are of all epochs on record, memory is the peak in bytes.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    metric = load_config(run).metric
    return _frame([_trial(record, metric) for record in RunFolder(run).trials()], TRIAL_DTYPES)


def epochs(run: Path) -> pd.DataFrame:
    """One row a finished epoch, trials in the order of suggestion.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    load_config(run)
    rows = [
        {"trial_id": record.trial_id, "number": record.origin.number}
        | row.to_json()
        | {"ended_at": _time(row.ended_at)}
        for record in RunFolder(run).trials()
        for row in record.rows()
    ]
    return _frame(rows, EPOCH_DTYPES)


def _trial(record: TrialRecord, metric: Metric) -> dict[str, Any]:
    origin, status, rows = record.origin, record.status(), record.rows()
    best = best_row(rows, metric)
    facts: dict[str, Any] = {
        "trial_id": record.trial_id,
        "number": origin.number,
        "status": status.status.value,
        "reason": status.reason or None,
        "origin": origin.origin,
        "epochs": len(rows),
        "seconds": sum(row.seconds for row in rows),
        "attempt": status.attempt,
        "host": status.host or None,
        "device": status.device or None,
        "slot": status.slot or None,
        "started": _time(status.started),
        "ended": _time(status.ended),
    }
    facts |= {f"config/{name}": value for name, value in origin.settings.effective().items()}
    if best is not None:
        facts |= {"best_epoch": best.epoch} | {name: getattr(best, name) for name in BEST_COLUMNS}
        facts["gpu_memory_bytes"] = max(row.gpu_memory_bytes for row in rows)
        facts |= frozen_work(rows)
    return facts


def _time(iso: str) -> datetime | None:
    return datetime.fromisoformat(iso) if iso else None


def _frame(rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Rows with exactly the columns and dtypes asked for, also when there are no rows."""
    return pd.DataFrame(rows, columns=list(dtypes), dtype=object).astype(dict(dtypes))


def varied(frame: pd.DataFrame) -> list[str]:
    """The settings in which the trials of a trial frame differ; the strategy and the rate where none does."""
    names = [name.removeprefix("config/") for name in SETTINGS if frame[name].nunique() > 1]
    if any(name not in SECONDARY for name in names):
        return names
    return ["strategy", "lr", *names]


def work(run: Path) -> dict[str, float]:
    """What all trials took from frozen layers, and what sharing saved; see trainable.record.frozen_work."""
    return frozen_work(row for record in RunFolder(run).trials() for row in record.rows())


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain JSON values: what is missing is None, times are ISO 8601."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value


def write(run: Path) -> list[Path]:
    """Write both frames into the run's results folder, as Parquet and CSV; the paths.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    frames = {"trials": trials(run), "epochs": epochs(run)}
    folder = RunFolder(run).results
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
