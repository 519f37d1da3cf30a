"""Before the first trial: what is refused, what is written at once, and that one driver holds a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sweep.__main__ import main
from sweep.request.config import SweepConfig, load_config
from sweep.request.open_run import open_run
from sweep.request.prepare import prepare
from sweep.session.hold import only_driver
from sweep.session.sessions import open_session
from tests.support.made_runs import create_run
from trainable.errors import RequestError

pytestmark = pytest.mark.usefixtures("own_store")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweep", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_is_born_whole_with_its_split_before_any_trial(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), ["sweep", "run"])
    split = pd.read_parquet(run.split)
    assert split["part"].value_counts().to_dict() == {"train": 32, "validation": 4, "test": 4}
    assert load_config(run.config) == config
    opened = open_run(run.path)
    assert opened.config == config
    assert opened.manifest.target == "Smiling"
    facts = json.loads(run.manifest.read_text())
    assert set(facts["digests"]) == {"table", "images", "split", "weights"}
    assert facts["format_version"] == 2
    assert run.trials() == []
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_a_folder_that_exists_is_refused_and_left_alone(config: SweepConfig) -> None:
    config.folder.mkdir(parents=True)
    (config.folder / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"sweep resume .* continues it.*name=run-2"):
        create_run(config, prepare(config), [])
    assert [path.name for path in config.folder.iterdir()] == ["mine.txt"]


def test_a_birth_that_fails_leaves_nothing(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    prepared = prepare(config)
    monkeypatch.setattr("sweep.session.create.write_manifest", fail)
    with pytest.raises(RequestError, match="No space left"):
        create_run(config, prepared, [])
    assert not config.storage.exists()


def test_the_command_refuses_to_be_a_second_driver(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
        second = command("resume", run.path)
    assert second.returncode == 2
    assert f"process {os.getpid()}" in second.stderr
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "place"), [("run", "none.yaml"), ("status", "."), ("resume", "none")]
)
def test_the_command_ends_with_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    place: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", name, str(tmp_path / place)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("sweep: ") and err.count("\n") == 1
