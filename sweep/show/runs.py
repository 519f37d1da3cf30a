"""The runs in a folder, one line each."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweep.show.status import read_status
from trainable.errors import RequestError
from trainable.records.rows import Status


def read_runs(storage: Path) -> list[dict[str, Any]]:
    """The status of each run in `storage`, as plain JSON; the newest first.

    A run that can't be read is listed with the reason.

    Raises:
        RequestError: `storage` is not a folder.
    """
    if storage.exists() and not storage.is_dir():
        raise RequestError(f"--storage must be a folder of runs, but {storage} is not a folder")
    return sorted(_each(storage), key=lambda facts: facts["at"], reverse=True)


def _each(storage: Path) -> Iterator[dict[str, Any]]:
    # a folder that begins with a dot is a run without a name yet
    for manifest in storage.glob("[!.]*/manifest.json"):
        folder = manifest.parent
        try:
            yield _line(read_status(folder))
        except RequestError as error:
            yield {
                "run": str(folder),
                "in_a_word": "unreadable",
                "reason": str(error),
                "at": _iso(manifest.stat().st_mtime),
            }


def _line(facts: dict[str, Any]) -> dict[str, Any]:
    """A run's entry in the list; its time is the end of its last session, or what came last before that."""
    sessions, best = facts["sessions"], facts["best"]
    last = sessions[-1] if sessions else {}
    return {
        "run": facts["run"],
        "name": facts["name"],
        "in_a_word": facts["in_a_word"],
        "trials_ended": sum(
            count for status, count in facts["counts"].items() if Status(status).has_ended
        ),
        "trials_asked": facts["trials_asked"],
        "metric": facts["metric"],
        "best": best and best["best"],
        "at": last.get("ended") or last.get("started") or facts["created"],
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def show_runs(found: list[dict[str, Any]], storage: Path, console: Console) -> None:
    """Print what `read_runs` returned."""
    if not found:
        console.print(
            f"no runs in {storage}: `sweep run CONFIG` starts one, --storage DIR looks elsewhere",
            soft_wrap=True,
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("run", "status", "trials", "best", "when"):
        table.add_column(column, no_wrap=column != "best")
    for facts in found:
        moment = datetime.fromisoformat(facts["at"]).astimezone()
        when = f"{moment:%Y-%m-%d %H:%M}"
        if "reason" in facts:
            table.add_row(facts["run"], facts["in_a_word"], "–", facts["reason"], when)
            continue
        best = "–" if facts["best"] is None else f"{facts['metric']} {facts['best']:.4f}"
        done = f"{facts['trials_ended']}/{facts['trials_asked']}"
        table.add_row(facts["run"], facts["in_a_word"], done, best, when)
    console.print(table)
