"""The status of a run, from its files alone, even while it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweep.request.open_run import open_run
from sweep.search.ranking import Standing, leader, standing_of
from sweep.search.study import asked_in_all
from sweep.session.hold import WATCH_SECONDS, Hold, read_hold
from sweep.show.progress import describe
from trainable.records.manifest import Session, SessionEnd
from trainable.records.rows import Row, Status, frozen_work
from trainable.records.run_folder import RunFolder
from trainable.show.colours import COLOURS
from trainable.show.wording import devices_said, duration, frozen_work_said


def read_status(folder: Path) -> dict[str, Any]:
    """Sessions, counts, best and one entry per trial, as plain JSON.

    Raises:
        RequestError: not a run folder.
    """
    opened = open_run(folder)
    run, manifest, config = opened.folder, opened.manifest, opened.config
    metric = config.metric
    trials: list[dict[str, Any]] = []
    epochs: list[Row] = []
    standings: list[Standing] = []
    for record in run.trials():
        asked, rows, status = record.asked, record.rows(), record.status()
        standing = standing_of(record.trial_id, asked, status.status, rows, metric)
        best = standing.best if standing else None
        standings += [standing] if standing else []
        epochs += rows
        trials.append(
            {
                "trial_id": record.trial_id,
                "number": asked.number,
                "origin": asked.origin,
                "audits": asked.audits,
                "status": status.status.value,
                "reason": status.reason,
                "epoch": len(rows),
                "best": getattr(best, metric.value) if best else None,
                "best_epoch": best.epoch if best else None,
                "setting": describe(asked.settings, asked.origin),
                "slot": status.slot,
                "host": status.host,
                "device": status.device,
                "pid": status.pid,
                "attempt": status.attempt,
            }
        )
    first = leader(standings)
    shown = next((trial for trial in trials if first and trial["trial_id"] == first.trial_id), None)
    word, state = _state(run, manifest.sessions)
    return {
        "run": str(folder),
        "name": config.name,
        "created": manifest.created,
        "metric": metric.value,
        "epochs": config.epochs,
        "trials_asked": asked_in_all(config, run.trials()),
        "counts": {
            status.value: count
            for status in Status
            if (count := sum(trial["status"] == status for trial in trials))
        },
        "best": shown
        and {key: shown[key] for key in ("trial_id", "best", "best_epoch", "setting")},
        "in_a_word": word,
        "state": state,
        "sessions": [session.model_dump(mode="json") for session in manifest.sessions],
        "frozen_work": frozen_work(epochs),
        "trials": trials,
    }


def _state(run: RunFolder, sessions: Sequence[Session]) -> tuple[str, str]:
    """Who holds the run, or how its last session ended: in a word, and in a sentence."""
    hold, goes_on = read_hold(run), f"`sweep resume {run.path}` continues the run"
    if hold is not None and hold.living is not False:
        return "running" if hold.living else "held", _held(hold, goes_on)
    if not sessions and hold is None:
        return "not begun", f"not begun; `sweep resume {run.path}` starts it"
    how = sessions[-1].how if sessions else None
    if how is SessionEnd.FINISHED:
        return "finished", "finished"
    if how is not None:
        word = "interrupted" if how in (SessionEnd.SIGINT, SessionEnd.SIGTERM) else str(how)
        return word, f"ended by {how}; {goes_on}"
    return (
        "killed",
        f"{hold.holder if hold else 'its driver'} exited without recording why; {goes_on}",
    )


def _held(hold: Hold, goes_on: str) -> str:
    """For a hold whose process is alive, or can't be seen."""
    holder = hold.holder
    if hold.living:
        return f"running since {holder.since} in {holder}"
    silent = f"{duration(hold.silent_seconds)} ago by this machine's clock"
    if hold.silent_seconds < WATCH_SECONDS:
        return f"held since {holder.since} by {holder}, last sign of life {silent}"
    return (
        f"{holder} has held it since {holder.since}, but its last sign of life was {silent}; {goes_on} "
        f"if there is none for {WATCH_SECONDS:.0f} s more"
    )


def show_status(facts: dict[str, Any], console: Console) -> None:
    """Print what `read_status` returned."""
    counts = ", ".join(f"{count} {status}" for status, count in facts["counts"].items())
    console.print(
        Text(facts["name"], "bold"),
        f" {facts['state']}; {facts['trials_asked']} trials asked for: {counts or 'none yet'}",
        soft_wrap=True,
    )
    devices = (device for session in facts["sessions"] for device in session["devices"])
    for device in devices_said(devices):
        console.print(device, soft_wrap=True)
    if said := frozen_work_said(facts["frozen_work"]):
        console.print(said, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in (
        "#",
        "trial",
        "status",
        "epoch",
        f"best {facts['metric']}",
        "at",
        "setting",
        "where",
    ):
        table.add_column(column, no_wrap=column not in ("setting", "where"))
    for trial in facts["trials"]:
        where = (
            f"{trial['slot']} {trial['host']} {trial['device']}"
            if trial["status"] == "running"
            else ""
        )
        says_more = trial["reason"] and trial["status"] in ("failed", "running")
        table.add_row(
            str(trial["number"]),
            trial["trial_id"],
            Text(trial["status"], COLOURS[trial["status"]].terminal),
            f"{trial['epoch']}/{facts['epochs']}",
            f"{trial['best']:.4f}" if trial["best"] is not None else "–",
            str(trial["best_epoch"] or "–"),
            trial["setting"] + (f" ({trial['reason']})" if says_more else ""),
            where,
        )
    console.print(table)
