"""Plots of a sweep: the drawn data are those of the frames; pictures come out of a real browser."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from analysis import plots
from analysis.__main__ import app
from analysis.frames import results
from analysis.pages.pictures import figures_of, write_pictures
from tests.support.analysis_runs import PENDING, make_run
from trainable.errors import RequestError
from trainable.metric import Metric


def test_the_history_steps_from_best_to_best(unchanged: Path) -> None:
    frame = results.trials(unchanged)
    steps, *points = plots.history(frame, Metric.VAL_ACCURACY, ["strategy"], None).data
    known = frame[frame["val_accuracy"].notna()]
    assert list(steps.y) == [100 * max(known["val_accuracy"][: n + 1]) for n in range(len(known))]
    drawn = sorted(x for each in points for x in each.x)
    assert drawn == sorted(known["number"])
    losses = plots.history(frame, Metric.VAL_LOSS, ["strategy"], None).data[0]
    assert list(losses.y) == [min(known["val_loss"][: n + 1]) for n in range(len(known))]


def test_the_timeline_has_a_bar_from_start_to_end_on_its_slot(unchanged: Path) -> None:
    frame = results.trials(unchanged)
    known = frame[frame["started"].notna() & frame["ended"].notna()]
    bars = plots.timeline(frame, ["strategy"], None).data
    assert len(bars) == len(known)
    length = {
        row["trial_id"]: (row["ended"] - row["started"]).total_seconds()
        for row in known.to_dict("records")
    }
    for bar in bars:
        assert bar.x[0] == 1000 * length[bar.hovertemplate.split(" ")[0]]


def test_the_heat_map_holds_the_best_of_each_cell() -> None:
    frame = pd.DataFrame(
        {
            "config/strategy": ["head", "head", "block5", "head"],
            "config/lr": [1e-3, 1e-3, 1e-3, 1e-4],
            "val_accuracy": [0.7, 0.8, 0.9, None],
            "val_loss": [0.7, 0.5, 0.3, None],
            "origin": "search",
        }
    )
    (drawn,) = plots.heat_map(frame, Metric.VAL_ACCURACY).data
    assert (list(drawn.x), list(drawn.y)) == (["0.001"], ["head", "block5"])
    assert [list(row) for row in drawn.z] == [[80.0], [90.0]]
    (drawn,) = plots.heat_map(frame, Metric.VAL_LOSS).data
    assert [list(row) for row in drawn.z] == [[0.5], [0.3]]
    assert drawn.reversescale


def test_rates_from_a_range_are_put_into_bins_and_none_is_lost() -> None:
    rates = [10 ** (-5 + n / 10) for n in range(31)]
    frame = pd.DataFrame(
        {
            "config/strategy": "head",
            "config/lr": rates,
            "val_accuracy": [n / 31 for n in range(31)],
            "origin": "search",
        }
    )
    (drawn,) = plots.heat_map(frame, Metric.VAL_ACCURACY).data
    assert sum(drawn.customdata[0]) == 31
    assert list(drawn.z[0]) == sorted(drawn.z[0]) and len(drawn.x) == 6


@pytest.mark.system("chromium")
def test_every_plot_becomes_a_picture(run: Path, tmp_path: Path) -> None:
    written = write_pictures(run, "png", tmp_path / "out")
    assert {path.stem for path in written} == {name for name, _ in figures_of(run)}
    for path in written:
        with Image.open(path) as image:
            assert image.width == 1800
            colours = image.convert("RGB").getcolors(2**24)
            assert colours is not None and len(colours) > 5, "something is drawn"


def test_the_command_names_each_picture_and_says_where_trials_are_missing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is drawn: a browser would do that."""
    monkeypatch.setattr(
        "analysis.pages.pictures.draw_pictures", lambda figures, kind: [b"drawn"] * len(figures)
    )
    out = tmp_path / "out"
    command = ["plots", str(run), "--format", "svg", "--out", str(out)]

    def paths() -> list[str]:
        return [str(out / f"{name}.svg") for name, _ in figures_of(run)]

    done, expected = CliRunner().invoke(app, command), paths()
    assert done.exit_code == 0 and done.stdout.splitlines() == expected
    assert sorted(expected) == sorted(map(str, out.iterdir()))
    monkeypatch.setattr("analysis.frames.shown.MOST", 3)
    *named, missing = CliRunner().invoke(app, command).stdout.splitlines()
    assert named == paths()
    assert missing.startswith("of 6 trials, ") and "are drawn and listed one by one" in missing


def test_a_plot_by_a_setting_of_trials_without_a_value_is_empty(tmp_path: Path) -> None:
    waiting = replace(PENDING, settings={"strategy": "head", "lr": 5e-4})
    figure = dict(figures_of(make_run(tmp_path, [PENDING, waiting], how=None)))["by-strategy"]
    assert len(figure.data) == 0 and figure.layout.yaxis.range is None


def test_another_format_is_refused(run: Path) -> None:
    with pytest.raises(RequestError, match="--format must be png or svg, but it is 'bmp'"):
        write_pictures(run, "bmp")
