"""What other tools are given is what the records say, as those tools read it."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from typer.testing import CliRunner

from analysis.__main__ import app
from analysis.frames import results
from analysis.frames.export import to_tensorboard
from trainable.errors import RequestError

RUN = CliRunner()


def test_tensorboard_shows_the_curves_and_settings_of_every_trial(
    unchanged: Path, tmp_path: Path
) -> None:
    to_tensorboard(unchanged, tmp_path / "events")
    trials = results.trials(unchanged).set_index("trial_id")
    assert {path.name for path in (tmp_path / "events").iterdir()} == set(trials.index)
    for trial_id, rows in results.epochs(unchanged).groupby("trial_id"):
        events = EventAccumulator(str(tmp_path / "events" / str(trial_id)))
        events.Reload()
        curve = events.Scalars("accuracy/val")
        assert [point.step for point in curve] == rows["epoch"].tolist()
        assert [point.value for point in curve] == pytest.approx(rows["val_accuracy"].tolist())
        assert curve[0].wall_time == pytest.approx(rows["ended_at"].iloc[0].timestamp())
        finite = rows[rows["train_loss"].notna()]
        assert len(events.Scalars("loss/train")) == len(finite)
        content = events.PluginTagToContent(metadata.PLUGIN_NAME)[metadata.SESSION_START_INFO_TAG]
        settings = metadata.parse_session_start_info_plugin_data(content).hparams
        asked = trials.loc[str(trial_id)]
        assert settings["strategy"].string_value == asked["config/strategy"]
        assert settings["lr"].number_value == asked["config/lr"]
        assert "momentum" not in settings or asked["config/optimizer"] == "sgd"


def test_a_folder_that_holds_something_is_refused(unchanged: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RequestError, match="must be a new or empty folder"):
        to_tensorboard(unchanged, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_command_says_how_to_look_at_it(unchanged: Path, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["export", str(unchanged), "--tensorboard", str(tmp_path / "my events")])
    assert done.exit_code == 0
    assert "6 trials; view them: tensorboard --logdir '" in done.stdout
