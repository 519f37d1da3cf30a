"""`sweep status` without a run: which runs there are, the newest first, from their files alone."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep.__main__ import app
from sweep.session.hold import only_driver
from sweep.session.sessions import close_session, open_session
from trainable.records.manifest import SessionEnd
from trainable.records.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("own_store")


def listed(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["status", *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


def facts(*arguments: str) -> list[dict[str, object]]:
    found = json.loads(listed(*arguments, "--json"))
    assert isinstance(found, list)
    return found


def test_runs_are_listed_by_name_status_trials_and_best_with_the_newest_first(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below `runs` where nobody says which folder."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    for name in ("older", "newer"):
        shutil.copytree(run, runs / name)
    folder = RunFolder(runs / "newer")
    with only_driver(folder) as session:
        open_session(folder, session)
        close_session(folder, session, SessionEnd.SIGTERM)
    (runs / "notes").mkdir()
    shutil.copytree(run, runs / ".begun.1234.partial")

    first, second = facts()
    assert (first["run"], second["run"]) == ("runs/newer", "runs/older")
    assert (first["in_a_word"], second["in_a_word"]) == ("interrupted", "finished")
    (one,) = [json.loads(listed(str(run), "--json"))]
    ended = sum(one["counts"].values())
    assert first["best"] == second["best"] == one["best"]["best"]
    assert first["trials_ended"] == ended and first["trials_asked"] == one["trials_asked"]
    shown = listed().splitlines()
    assert "runs/newer" in shown[1] and "interrupted" in shown[1] and f"{ended}/" in shown[1]
    assert f"{one['metric']} {one['best']['best']:.4f}" in shown[2] and "runs/older" in shown[2]
    assert len(shown) == 3


def test_a_run_that_is_damaged_is_named_and_keeps_no_other_from_the_list(
    run: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "below"
    shutil.copytree(run, runs / "good")
    shutil.copytree(run, runs / "bad")
    (runs / "bad" / "manifest.json").write_text("{")
    os.utime(runs / "bad" / "manifest.json", (1, 1))
    good, bad = facts("--storage", str(runs))
    assert (good["in_a_word"], bad["in_a_word"]) == ("finished", "unreadable")
    assert "manifest.json" in str(bad["reason"])
    assert "unreadable" in listed("--storage", str(runs))


def test_a_folder_without_runs_says_so_in_a_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert facts("--storage", str(folder)) == []
        said = listed("--storage", str(folder))
        assert said.startswith(f"no runs in {folder}: `sweep run CONFIG` starts one")
        assert said.count("\n") == 1
