"""A run as an Optuna study and in optuna-dashboard: what is on record, live, over real HTTP."""

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from analysis.frames import results
from sweep.search.study import study_of
from sweep.show import dashboard
from sweep.show.dashboard import Dashboard
from tests.support.project import ROOT
from trainable.errors import RequestError
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder


def test_the_study_of_a_run_is_what_is_on_record(run: Path) -> None:
    study = study_of(run)
    frame = results.trials(run).set_index("trial_id")
    space = results.load_config(run).space
    inside = {r.trial_id for r in RunFolder(run).trials() if space.place(r.asked.settings)}
    assert {t.user_attrs["trial_id"] for t in study.trials} == inside
    for trial in study.trials:
        row = frame.loc[trial.user_attrs["trial_id"]]
        assert trial.params["strategy"] == row["config/strategy"]
        if trial.state is TrialState.COMPLETE:
            assert trial.value == row["val_accuracy"]
            assert trial.datetime_start and trial.datetime_complete
        if trial.intermediate_values:
            assert len(trial.intermediate_values) == row["epochs"]
    done = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert study.best_value == max(t.value for t in done if t.value is not None)
    importances = optuna.importance.get_param_importances(
        study, params=["strategy", "lr"], evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert set(importances) == {"strategy", "lr"}


@pytest.fixture
def served(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a dashboard that serves `run`."""
    monkeypatch.setattr(dashboard, "REFRESH_SECONDS", 0.1)
    made = Dashboard(run, 0)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made.address
    made.close()
    thread.join(10)
    assert not thread.is_alive()


def get(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def test_the_dashboard_shows_the_records_and_follows_them(run: Path, served: str) -> None:
    assert served.startswith("http://127.0.0.1:")
    (study,) = get(f"{served}/api/studies")["study_summaries"]
    assert study["study_name"] == results.load_config(run).name
    detail = get(f"{served}/api/studies/{study['study_id']}?after=0")
    records = RunFolder(run).trials()
    assert len(detail["trials"]) == len(study_of(run).trials)

    space = results.load_config(run).space
    record = next(
        r for r in records if r.status().status is Status.FINISHED and space.place(r.asked.settings)
    )
    record.write_status(replace(record.status(), status=Status.FAILED))

    def states() -> list[str]:
        shown = get(f"{served}/api/studies/{study['study_id']}?after=0")["trials"]
        return [t["state"] for t in shown]

    wait = threading.Event()
    for _ in range(100):
        if "Fail" in states():
            break
        wait.wait(0.1)
    assert "Fail" in states()


def test_a_port_that_is_taken_is_said(run: Path, served: str) -> None:
    port = int(served.rpartition(":")[2])
    with pytest.raises(RequestError, match=f"must be free on 127.0.0.1, but {port} is not"):
        Dashboard(run, port)


@pytest.mark.whole
def test_the_command_serves_until_ctrl_c(run: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "sweep", "dashboard", str(run), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split("/dashboard shows ")[0]
        assert get(f"{address}/api/studies")["study_summaries"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
