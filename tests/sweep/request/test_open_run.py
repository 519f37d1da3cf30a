"""The one way into a run folder: what is not as it was written is refused by name; who only reads writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.final_test import final_test
from analysis.frames import results
from sweep.request.open_run import open_held_run, open_run
from sweep.search.study import study_of
from sweep.session.sessions import close_session, open_session
from sweep.show.status import read_status
from tests.support.analysis_runs import GOOD, PENDING, copy_of, make_run
from tests.support.manifests import edit_manifest, session
from trainable.errors import RequestError
from trainable.records.manifest import Configuration, SessionEnd, read_manifest, write_manifest
from trainable.records.run_folder import RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made"), [GOOD, PENDING])


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(copy_of(made, tmp_path / "run"))


READERS: list[Callable[[Path], object]] = [
    open_run,
    read_status,
    study_of,
    results.trials,
    results.epochs,
    results.winner,
]


def refusals(run: RunFolder) -> set[str]:
    """What every reader says, and who would open the test set."""
    said = set()
    for reader in (*READERS, final_test):
        with pytest.raises(RequestError) as caught:
            reader(run.path)
        said.add(str(caught.value))
    return said


def as_written_by_format_1(facts: dict[str, Any]) -> None:
    """Without what was not known yet."""
    facts["format_version"] = 1
    for name in [name for name, value in facts.items() if value is None]:
        del facts[name]
    del facts["understood"], facts["images"]["unlabelled"], facts["settings"]["gpu_share"]
    for each in facts["sessions"]:
        del each["devices"]


def test_another_metric_in_the_copy_for_reading_is_refused_by_all_who_read(run: RunFolder) -> None:
    text = run.config.read_text()
    assert "metric: val_accuracy" in text
    run.config.write_text(text.replace("metric: val_accuracy", "metric: val_loss"))
    (said,) = refusals(run)
    assert str(run.config) in said and "it was changed; undo the change" in said


def test_another_split_is_refused_by_all_who_read(run: RunFolder) -> None:
    split = pd.read_parquet(run.split)
    split["label"] = 1 - split["label"]
    split.to_parquet(run.split, index=False)
    (said,) = refusals(run)
    assert str(run.split) in said and "it was changed" in said
    run.split.unlink()
    (said,) = refusals(run)
    assert f"there must be a split at {run.split}" in said


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["split", "weights", "images"])
def test_a_digest_that_is_missing_is_no_match(run: RunFolder, name: str, version: int) -> None:
    if version == 1:
        edit_manifest(run, as_written_by_format_1)
    edit_manifest(run, lambda facts: facts["digests"].pop(name))
    (said,) = refusals(run)
    assert said == (
        f"{run.manifest} must be as this project wrote it, but digests.{name}: Field required; put the old one back"
    )


def test_a_manifest_changed_by_hand_is_refused_whatever_was_changed(run: RunFolder) -> None:
    written = json.loads(run.manifest.read_text())
    changes: list[dict[str, Any]] = [
        {"target": "Male"},
        {"classes": ["1", "0"]},
        {"warnings": ["none"]},
        {"git_commit": None},
        {"sha256": "0" * 64},
        {"sessions": []},
    ]
    for change in changes:
        run.manifest.write_text(json.dumps(written | change))
        (said,) = refusals(run)
        assert "it was changed since" in said
    run.manifest.write_text(json.dumps(dict(reversed(written.items()))))
    assert open_run(run.path).manifest.target == "Smiling", "layout and order are nobody's matter"


def test_a_text_that_is_not_the_one_of_its_digest_is_refused(run: RunFolder) -> None:
    def another(facts: dict[str, Any]) -> None:
        (entry,) = facts["configurations"]
        entry["text"] = entry["text"].replace("val_accuracy", "val_loss")

    edit_manifest(run, another)
    (said,) = refusals(run)
    assert "the text of configuration 1 does not match its sha256" in said


def test_a_copy_that_is_gone_is_no_matter_and_made_again_by_who_holds_the_run(
    run: RunFolder,
) -> None:
    before = [reader(run.path) for reader in READERS[:2]]
    text = run.config.read_bytes()
    run.config.unlink()
    assert [reader(run.path) for reader in READERS[:2]] == before
    assert not run.config.exists()
    open_held_run(run)
    assert run.config.read_bytes() == text


def test_an_earlier_text_is_an_extension_under_way(run: RunFolder) -> None:
    facts = yaml.safe_load(run.config.read_text())
    facts["trial"]["epochs"] = 9
    asked = Configuration.of(yaml.safe_dump(facts), ["sweep", "extend"])
    write_manifest(run, read_manifest(run).with_configuration(asked))
    assert open_run(run.path).config.epochs == 9
    assert "epochs: 3" in run.config.read_text()
    open_held_run(run)
    assert run.config.read_text() == asked.text


def test_who_only_reads_writes_nothing(run: RunFolder) -> None:
    edit_manifest(run, as_written_by_format_1)

    def everything() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in run.path.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = everything()
    for reader in READERS:
        reader(run.path)
    assert everything() == before


def test_format_1_says_what_format_2_says(run: RunFolder) -> None:
    written = read_manifest(run)
    edit_manifest(run, as_written_by_format_1)
    assert read_manifest(run) == written


def test_what_nothing_reads_any_more_is_left_out_of_format_1(run: RunFolder) -> None:
    written = read_manifest(run)

    def with_retired_keys(facts: dict[str, Any]) -> None:
        as_written_by_format_1(facts)
        facts["command"] = ["sweep", "run"]
        facts["images"]["duplicates"] = 3
        facts["settings"]["pixel_cache_bytes"] = 10**9

    edit_manifest(run, with_retired_keys)
    assert read_manifest(run) == written


def test_the_first_session_that_writes_keeps_the_older_manifest_beside(run: RunFolder) -> None:
    edit_manifest(run, as_written_by_format_1)
    older, kept = run.manifest.read_bytes(), run.path / "manifest.1.json"
    open_session(run, 2)
    assert kept.read_bytes() == older
    close_session(run, 2, SessionEnd.FINISHED)
    assert kept.read_bytes() == older
    assert [each.number for each in open_run(run.path).manifest.sessions] == [1, 2]
    assert json.loads(run.manifest.read_text())["format_version"] == 2


def test_a_run_of_format_2_has_no_older_manifest_beside(run: RunFolder) -> None:
    open_session(run, 2)
    assert not (run.path / "manifest.1.json").exists()


def test_the_steps_change_what_they_name_and_nothing_else(run: RunFolder) -> None:
    before = read_manifest(run)
    begun = before.with_session(session(2))
    ended = begun.with_session_ended(2, SessionEnd.TIME_LIMIT, "2026-01-01T00:00:00+00:00")
    assert begun.sessions[-1].how is None and ended.sessions[-1].how == "time limit"
    assert ended.model_copy(update={"sessions": before.sessions}) == before
    assert ended.with_session_ended(7, SessionEnd.ERROR, "2026-01-01T00:00:00+00:00") == ended, (
        "it opened none"
    )
    asked = Configuration.of("name: x\n", [])
    extended = before.with_configuration(asked)
    assert extended.configuration == asked and extended.sharing is None
    assert extended.settings == before.settings, "device and number format stay"
    for manifest in (begun, ended, extended):
        write_manifest(run, manifest)
        assert read_manifest(run) == manifest
