"""Nothing that is read runs code, nothing that is shown gives orders, and files have the rights that are asked for."""

import ast
import io
import os
import pickle
import stat
from pathlib import Path
from unicodedata import category

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from sweep.request.config import check_config
from sweep.request.prepare import prepare
from sweep.session.sessions import open_session
from tests.support.bench import Bench
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from tests.support.project import ROOT, nodes
from trainable.config import TrialConfig
from trainable.records.trial_folder import TrialRecord
from trainable.show.terminal import PlainConsole, printable

FILES = sorted(
    path
    for folder in ("trainable", "sweep", "analysis", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
RUN_CODE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
HARMLESS = {
    ("joblib", "cpu_count")
}  # of what such modules hold: reads nothing but the system's files

NEVER_CALLED = ("eval", "exec", "yaml.load", "yaml.unsafe_load", "pd.read_pickle")


def called(node: ast.Call) -> tuple[str, set[str]]:
    """A call as `function` or `module.function`, and the names of its keywords that are True."""
    name = node.func
    true = {
        k.arg
        for k in node.keywords
        if k.arg and isinstance(k.value, ast.Constant) and k.value.value is True
    }
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        return f"{name.value.id}.{name.attr}", true
    return name.id if isinstance(name, ast.Name) else "", true


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_is_read_by_a_loader_that_runs_code(path: Path) -> None:
    for node in nodes(path.relative_to(ROOT).as_posix()):
        if isinstance(node, ast.Import):
            assert not RUN_CODE & {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            taken = {(node.module or "", name.name) for name in node.names} - HARMLESS
            assert not RUN_CODE & {module.split(".")[0] for module, _ in taken}
        if isinstance(node, ast.Call):
            name, true = called(node)
            assert name not in NEVER_CALLED
            if name == "torch.load":
                assert "weights_only" in true
            assert "allow_pickle" not in true


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mknod, (str(self.mark),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))]
)
def test_code_in_the_place_of_a_state_is_not_run_and_the_trial_starts_again(
    bench: Bench, tmp_path: Path, write: object
) -> None:
    config = TrialConfig(strategy="head", head="linear", batch_size=8)
    record = bench.record(config.trial_id)
    calm, _ = bench.fit(config, record)
    mark = tmp_path / "mark"
    hostile = {"epoch": 2, "trained": Hostile(mark)}
    write(hostile, record.last)  # type: ignore[operator]
    rows, _ = bench.fit(config, record)
    assert not mark.exists()
    assert [row.train_loss for row in rows] == [row.train_loss for row in calm]
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists(), "the file would have run code elsewhere"


def test_files_have_the_rights_that_the_umask_gives(
    faces: Faces, tmp_path: Path, own_store: Path
) -> None:
    config = check_config(sweep_facts(faces, tmp_path, {"strategy": "full"}), {}, "test")
    before = os.umask(0o027)
    try:
        run = create_run(config, prepare(config), [])
        open_session(run, session := 1)
        TrialRecord.create(run, TrialConfig(), 0, session)
    finally:
        os.umask(before)
    rights = {
        (path.is_dir(), oct(stat.S_IMODE(path.stat().st_mode)))
        for path in [run.path, *run.path.rglob("*")]
    }
    assert rights == {(True, "0o750"), (False, "0o640")}


@pytest.mark.parametrize(
    "name", ["[red]x[/red]", "[/]", ":smile:", "\x1b]0;title\x07\x1b[2J", "a\u202eb", "a\udcffb"]
)
def test_a_terminal_shows_a_name_and_obeys_nothing_in_it(name: str) -> None:
    shown = io.StringIO()
    console = PlainConsole(file=shown, width=100, force_terminal=True, color_system=None)
    table = Table(name)
    table.add_row(name)
    console.print(table)
    console.print(f"in {name}")
    console.warn(name)
    text = shown.getvalue()
    assert text.count(printable(name)) == 4
    assert "\x1b]" not in text and "\x1b[2J" not in text and "\x07" not in text
    text.encode()


def test_spaces_of_any_width_stay() -> None:
    assert printable("97.0\u202f% of 1\u00a0000") == "97.0\u202f% of 1\u00a0000"


@given(st.text())
def test_printable_text_is_one_line_that_any_terminal_can_encode(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or category(c) == "Zs" for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown
