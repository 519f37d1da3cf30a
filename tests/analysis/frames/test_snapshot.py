"""One read of a run for all that a command says of it: each record once, of one moment, without torch."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.frames import results
from analysis.frames.select import select as ranked
from analysis.frames.shown import BEST, MOST, shown_of
from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.epochs import parse_epochs
from analysis.pages.report import render
from benchmarks.read import write_run
from sweep.search.ranking import best_row, standing
from tests.support.analysis_runs import PENDING, POOR, copy_of, make_run
from tests.support.project import ROOT
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.rows import ROW_COLUMNS, Row
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

RECORDS = (
    "status.json",
    "config.json",
    "epochs.jsonl",
    "sweep.yaml",
    "manifest.json",
    "rungs.jsonl",
    "test.json",
)
COMMANDS = ("results --json", "select", "cost --json", "report")
WATCHED = """
import json, sys
opened, found = [], {}
sys.addaudithook(lambda event, facts: event == "open" and opened.append(str(facts[0])))
from analysis.__main__ import app
for command in sys.argv[3:]:
    del opened[:]
    name, *options = command.split()
    app([name, sys.argv[2], *options], standalone_mode=False)
    found[command] = {"opened": list(opened), "torch": "torch" in sys.modules}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def watched(
    unchanged: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A run, and what each of the commands opened of it, as the interpreter tells it, and whether torch came with it.

    One process for all of them, in which torch stays once it has come.
    """
    folder = tmp_path_factory.mktemp("watched")
    run, out = copy_of(unchanged, folder / "run"), folder / "watched.json"
    command = [sys.executable, "-c", WATCHED, str(out), str(run), *COMMANDS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run, json.loads(out.read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_opens_each_record_once_and_does_not_import_torch(
    watched: tuple[Path, dict[str, dict[str, Any]]], command: str
) -> None:
    run, found = watched
    facts = found[command]
    times = Counter(path for path in facts["opened"] if path.startswith(str(run)))
    records = {path: count for path, count in times.items() if Path(path).name in RECORDS}
    trials = len(list((run / "trials").iterdir()))
    assert len(records) >= 3 * trials + 2
    assert set(records.values()) == {1}, {path: n for path, n in records.items() if n > 1}
    assert not facts["torch"]


def test_reading_a_status_or_which_images_were_right_does_not_import_torch(run: Path) -> None:
    code = (
        "import sys, pathlib; from sweep.show.status import read_status\n"
        "from analysis.frames.snapshot.rights import Snapshot, rights_of, validation_labels\n"
        "read_status(pathlib.Path(sys.argv[1]))\n"
        "run = Snapshot.of(sys.argv[1]); images = len(validation_labels(run))\n"
        "sys.exit(rights_of(run.trials[0], images) is None or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], cwd=ROOT).returncode == 0


def test_what_was_read_stays_of_one_moment_whatever_the_run_does_since(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.pages.report.now", lambda: "2026-01-01T00:00:00+00:00")
    read = results.read(run)
    page, trials, epochs = render(read), results.trials(read), results.epochs(read)
    for record in RunFolder(run).trials():
        (record.folder / "status.json").write_text(json.dumps({"status": "interrupted"}))
        (record.folder / "epochs.jsonl").unlink(missing_ok=True)
    assert results.trials(read).equals(trials) and results.epochs(read).equals(epochs)
    assert render(read) == page
    assert results.epochs(run).empty


def test_a_page_written_while_the_run_changes_is_of_the_moment_of_its_read(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on as soon as its last record was read: the page is that of a copy that never changed."""
    monkeypatch.setattr("analysis.pages.report.now", lambda: "2026-01-01T00:00:00+00:00")
    before = render(run)
    first = RunFolder(run).trials()[0]
    last = RunFolder(run).trials()[-1].trial_id
    read_rows = TrialRecord.read_rows

    def then_go_on(record: TrialRecord) -> bytes:
        lines = read_rows(record)
        if record.trial_id == last:
            (first.folder / "status.json").write_text(json.dumps({"status": "running"}))
            (first.folder / "epochs.jsonl").write_text("")
        return lines

    monkeypatch.setattr(TrialRecord, "read_rows", then_go_on)
    assert render(run) == before
    monkeypatch.undo()
    assert first.rows() == []


def test_a_decision_on_a_trial_that_began_after_the_read_is_left_out(run: Path) -> None:
    decision = {"sequence": 1, "rung": 1, "score": 0.5, "cutoff": None, "verdict": "go on"}
    known = RunFolder(run).trials()[0].trial_id
    lines = [json.dumps(decision | {"trial_id": each}) + "\n" for each in (known, "0" * 12)]
    RunFolder(run).rungs.write_text("".join(lines))
    assert results.decisions(run)["trial_id"].tolist() == [known]
    render(run)


def row_with(number: float, ended_at: str) -> Row:
    """Of a first epoch in which all that is measured is `number`."""
    values: list[Any] = [1, *[number] * 9, 0, ended_at]
    return Row(*values)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**53)
WHOLE = {name: COUNTS for name in ROW_COLUMNS if isinstance(getattr(row_with(0.5, ""), name), int)}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            name: WHOLE.get(name, NUMBERS)
            for name in ROW_COLUMNS
            if name not in ("epoch", "ended_at")
        }
    ),
    max_size=4,
)


@given(st.lists(ROWS, max_size=4), st.sampled_from(Metric), st.booleans())
@settings(deadline=None, max_examples=60)
def test_rows_parsed_at_once_are_those_parsed_line_by_line(
    trials: list[list[dict[str, Any]]], metric: Metric, older: bool
) -> None:
    """To the last bit; also those of an older version, which lack a column."""
    lines = []
    for rows in trials:
        text = ""
        for number, row in enumerate(rows, start=1):
            facts = {"epoch": number, "ended_at": "2026-01-01T00:00:00+00:00", **row}
            if older:
                del facts["skipped_steps"]
            text += json.dumps(facts) + "\n"
        lines.append(text.encode())
    records = [TrialRecord(Path(f"runs/x/trials/{number}")) for number in range(len(trials))]
    found = parse_epochs(records, lines)
    for place, (record, each) in enumerate(zip(records, lines, strict=True)):
        expected = record.parse_rows(each)
        assert list(found.of(place).rows) == expected
        assert found.of(place).best(metric) == best_row(expected, metric)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ('"epoch": 1,', "line 1 is from epoch 7"),
        ('"train_loss": ', "train_loss is 'much'"),
        ('"val_auc": ', "'val_auc' is missing"),
        ('"ended_at": ', "ended_at is 'yesterday'"),
        ("{", "line 1 of .* must hold JSON"),
    ],
)
def test_a_damaged_row_is_named_with_its_file_and_remedy(run: Path, damage: str, said: str) -> None:
    record = next(each for each in RunFolder(run).trials() if each.rows())
    path = record.folder / "epochs.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    changed = {
        '"epoch": 1,': json.dumps(row | {"epoch": 7}),
        '"train_loss": ': json.dumps(row | {"train_loss": "much"}),
        '"ended_at": ': json.dumps(row | {"ended_at": "yesterday"}),
        '"val_auc": ': json.dumps(
            {name: value for name, value in row.items() if name != "val_auc"}
        ),
        "{": "{",
    }[damage]
    second = json.dumps(row | {"epoch": 2})  # a damaged last line counts as torn
    path.write_text(f"{changed}\n{second}\n")
    with pytest.raises(RequestError, match=said) as caught:
        results.epochs(run)
    assert record.trial_id in str(caught.value) and "delete it" in str(caught.value)


ROW = row_with(0.1 + 0.2, "2026-01-01T00:00:00+00:00").to_json()


def _lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


THREE = _lines(ROW, ROW | {"epoch": 2}, ROW | {"epoch": 3})
FIRST, SECOND, THIRD = THREE.splitlines(keepends=True)


@pytest.mark.parametrize(
    "lines",
    [
        FIRST[:-1] + SECOND[:-1] + b"\n\n" + THIRD,
        FIRST[:-2] + b"\n}" + SECOND + THIRD,
        FIRST.replace(b', "lr"', b',\n"lr"')[:-1] + SECOND + THIRD,
        FIRST + b"\n" + SECOND,
        THREE.replace(b'"2026', b'"\xff2026', 1),
        THREE + b"\0\0\n",
        b"\xef\xbb\xbf" + THREE,
        b"[1]\n",
        b"null\n",
        _lines(ROW | {"skipped_steps": None}),
        _lines(ROW | {"val_loss": None}),
        _lines(ROW | {"val_loss": True}),
        _lines(ROW | {"val_loss": "0.5"}),
        _lines(ROW, ROW),
        THREE.replace(b"\n", b"\r\n"),
        THREE.replace(b"\n", b"  \n"),
        THREE.replace(b'"val_loss"', b'"val\\u005floss"'),
        THREE.replace(b'"val_loss": ', b'"val_loss": 0.25, "val_loss": '),
        THREE.replace(b'"val_loss": ', b'"val_loss": 9007199254740993.0, "unknown": '),
        _lines(ROW | {"unknown": [1, {"a": None}]}, ROW | {"epoch": 2, "unknown": "text"}),
        _lines(ROW | {"val_loss": 1, "epoch": 1.0, "seconds": 2**60}),
        _lines(ROW | {"val_loss": float("inf")}),
    ],
)
def test_an_odd_line_is_read_or_refused_as_the_parser_of_lines_does_it(lines: bytes) -> None:
    """Arrow alone would take some of them, cut others down, and end others without the name of the file."""
    record = TrialRecord(Path("runs/x/trials/0"))
    try:
        expected = record.parse_rows(lines)
    except RequestError as error:
        with pytest.raises(RequestError) as caught:
            parse_epochs([record], [lines])
        assert str(caught.value) == str(error)
    else:
        assert list(parse_epochs([record], [lines]).of(0).rows) == expected


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"gpu_memory_bytes": 1.5}, "1.5 is not a whole number"),
        ({"gpu_memory_bytes": 2**63}, "too large"),
        ({"gpu_memory_bytes": float("inf")}, "infinity"),
        ({"ended_at": 3}, "ended_at is 3"),
        ({"ended_at": "\ud800"}, "ended_at is '.ud800'"),
    ],
)
def test_a_value_that_no_column_holds_is_named_with_its_file_and_remedy(
    damage: dict[str, Any], said: str
) -> None:
    record = TrialRecord(Path("runs/x/trials/0"))
    with pytest.raises(RequestError, match=f"^runs/x/trials/0/epochs.jsonl .*{said}.*; delete it"):
        parse_epochs([record], [_lines(ROW | damage)])


def test_what_was_read_ranks_as_the_files_do(run: Path) -> None:
    read = Snapshot.of(run)
    metric = read.config.metric
    from_files = [s for record in RunFolder(run).trials() if (s := standing(record, metric))]
    assert list(read.standings) == from_files
    assert ranked(read) == ranked(run)
    assert Snapshot.of(read) is read


# ---------------------------------------------------------------- more trials than a page can hold


def test_a_small_run_is_shown_whole_and_says_nothing(tmp_path: Path) -> None:
    read = results.read(make_run(tmp_path, [POOR, PENDING]))
    assert len(shown_of(read).trial_ids) == 2 and shown_of(read).said() is None
    assert "drawn and listed one by one" not in render(read)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "large"
    write_run(folder, 3 * MOST, 4, 40)
    return folder


def test_of_a_large_run_the_best_and_a_fair_share_of_the_rest_are_shown(large: Path) -> None:
    read = results.read(large)
    shown = shown_of(read)
    frame = results.trials(read)
    assert len(shown.trial_ids) == MOST
    best = frame.sort_values("val_accuracy", ascending=False)["trial_id"][:BEST]
    assert set(best) <= shown.trial_ids and results.winner(read) in shown.trial_ids
    drawn = shown.of(frame)
    assert drawn["val_accuracy"].cummax().iloc[-1] == frame["val_accuracy"].max()
    line = frame["val_accuracy"].cummax()
    assert line[drawn.index].tolist() == drawn["val_accuracy"].cummax().tolist(), "the best so far"
    thirds = drawn["number"] // MOST
    assert thirds.value_counts().between(MOST // 6, MOST // 2).all()


@pytest.mark.whole
def test_the_page_of_a_large_run_says_what_it_shows_and_counts_all(large: Path) -> None:
    page = render(large)
    assert f"Of {3 * MOST} trials, {MOST} are drawn and listed one by one" in page
    assert page.count('<details id="t-') == MOST
    assert f"{2 * MOST} finished" in page and f"{MOST} pruned" in page
    assert len(page) < 10 * 2**20
