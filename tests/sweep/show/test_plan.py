"""sweep plan: trials, split and sizes, before anything starts."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sweep.__main__ import app
from sweep.request.config import SweepConfig

pytestmark = pytest.mark.usefixtures("own_store")


def test_plan_shows_trials_split_and_sizes_without_starting_ray(
    config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it now raises ImportError
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    done = CliRunner().invoke(
        app, ["plan", str(path), "asha.grace_period=2", "asha.rungs_of=strategy"]
    )
    assert done.exit_code == 0, done.output
    for words in (
        "2 trials of at most 3 epochs by grid",
        "ASHA compares those of each strategy after epochs 2",
        "train",
        "32",
        "block5",
        "GB",
    ):
        assert words in done.stdout
    assert not config.folder.exists()


def test_plan_says_why_nothing_would_be_shared(
    config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    off = CliRunner().invoke(app, ["plan", str(path), "sharing=off"])
    assert off.exit_code == 0 and "sharing: off" in off.stdout
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "file" / "store"))
    none = CliRunner().invoke(app, ["plan", str(path)])
    assert none.exit_code == 0, none.output
    assert "sharing: none, since the store can't be used" in none.stdout
    assert "Not a directory" in none.stdout
