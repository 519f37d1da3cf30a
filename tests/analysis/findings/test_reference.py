"""The source reports' figures beside a run that holds their settings."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.findings.reference import REPORTS, Published, _difference, beside_reports
from sweep.request.config import check_config, load_config
from sweep.request.prepare import prepare
from sweep.search.proposals import Proposals
from sweep.session.sessions import open_session
from tests.support.faces import Faces
from tests.support.made_runs import create_run
from tests.support.project import ROOT
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(("example", "report", "count"), [("smiling", "S", 2), ("gender", "M", 4)])
def test_the_examples_settings_are_recognised_as_the_reports(
    example: str, report: str, count: int, faces: Faces, tmp_path: Path, own_store: Path
) -> None:
    overrides = [
        f"data.images={faces.images}",
        f"data.table={faces.table}",
        "data.image_size=32",
        "model.weights=none",
        "model.width=0.05",
        f"storage={tmp_path}",
    ]
    config = load_config(EXAMPLES / f"{example}.yaml", overrides)
    trial = config.trial | (
        {"head": "linear"} if example == "gender" else {}
    )  # needs no classifier
    plain = check_config(config.model_dump(mode="json") | {"trial": trial}, {}, "test")
    run = create_run(plain, prepare(plain), [])
    open_session(run, session := 1)
    for number, settings in enumerate(Proposals(config)._grid):
        record = TrialRecord.create(run, settings, number, session)
        record.append(Row(1, 0.5, 0.8, 0.4, 0.75, 0.75, 0.8, settings.lr, 1.0, 10.0, 0, ""))
        record.write_status(replace(record.status(), status=Status.FINISHED))
    found = beside_reports(run.path)
    assert len(found) == count and set(found["report"]) == {report}
    known = {(p.settings["strategy"], p.settings["lr"]): p for p in REPORTS if p.report == report}
    for row in found.to_dict(orient="records"):
        theirs = known[row["strategy"], row["lr"]]
        assert row["low"] < row["our_validation"] == 0.75 < row["high"]
        if theirs.validation is not None:
            assert row["difference"] == pytest.approx(0.75 - theirs.validation)
            assert row["difference_of"] == "validation"
        else:
            assert pd.isna(row["difference"]) and pd.isna(row["difference_of"])
    if report == "M":
        collapsed = found[(found["strategy"] == "block5") & (found["lr"] == 1e-3)]
        assert collapsed["their_test"].item() == 0.5773
        assert collapsed["repeated"].item() == "93.63%, 96.50%"


def test_like_is_subtracted_from_like() -> None:
    both = Published("S", "Smiling", {}, 0.93, 0.91)
    tested_alone = Published("M", "Male", {}, None, 0.95)
    assert _difference(both, 0.94, 0.90) == (pytest.approx(0.01), "validation")
    assert _difference(tested_alone, 0.97, 0.94) == (pytest.approx(-0.01), "test")
    assert _difference(tested_alone, 0.97, None) == (None, None)


def test_other_settings_and_other_targets_stand_beside_nothing(run: Path) -> None:
    found = beside_reports(run)
    assert isinstance(found, pd.DataFrame) and found.empty
    assert "difference" in found
    assert RunFolder(run).path == run
