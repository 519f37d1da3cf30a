"""Until a session begins nothing is on record: what is refused, interrupted or killed before leaves all as it was."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep.__main__ import app, start
from sweep.on_ray import launcher
from sweep.on_ray.resolve import Resolved
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import Run, open_run
from sweep.request.prepare import prepare
from sweep.resources.allocation import Allocation
from sweep.session.create import give_name, partial_run
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from trainable.config import RunSettings
from trainable.errors import RequestError
from trainable.records.manifest import SessionEnd, read_manifest
from trainable.records.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("own_store", "no_cluster")]  # imports it


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray starts; what nodes say is up to each test."""

    @contextmanager
    def cluster(*given: object) -> Iterator[str]:
        yield ""

    monkeypatch.setattr("sweep.on_ray.cluster.cluster", cluster)
    monkeypatch.setenv("SWEEP_RAY_BESIDE_CPUS", "1000")


@pytest.fixture
def config(faces: Faces, tmp_path: Path) -> SweepConfig:
    facts = sweep_facts(faces, tmp_path / "all" / "runs", {"strategy": "full", "epochs": 2})
    return check_config(facts, {}, "test")


def say(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Run], Resolved]) -> None:
    monkeypatch.setattr(launcher, "resolve", lambda run, *given: answer(run))


def resolved(run: Run) -> Resolved:
    """As where all nodes can do what is asked for."""
    config = run.config
    settings = run.settings or RunSettings(
        folder=config.folder,
        images=config.data.images,
        image_size=config.data.image_size,
        weights=config.model.weights,
        width=config.model.width,
        epochs=config.epochs,
    )
    manifest = run.manifest.with_settings(settings, {"why": "nothing is shared"})
    return Resolved(manifest, settings, Allocation(0.0, 1, 1), [])


def refuse(run: Run) -> Resolved:
    raise RequestError("no node can hold a trial")


def interrupt(run: Run) -> Resolved:
    raise KeyboardInterrupt


def break_down(run: Run) -> Resolved:
    raise ValueError("what a library has to say")


def seen(run: Run) -> Resolved:
    """What is there while the nodes look at it."""
    assert run.folder.split.is_file()
    assert re.fullmatch(r"\.run\.[0-9a-f]{8}\.partial", run.folder.path.name)
    assert not run.config.folder.exists()
    return resolved(run)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begun(config: SweepConfig, patch: pytest.MonkeyPatch) -> RunFolder:
    """A run of which one session was interrupted before its first trial."""
    say(patch, resolved)
    with patch.context() as within:
        within.setattr(launcher, "_tune", lambda *given: False)
        assert start(config, ["sweep", "run"]) == 130
    return RunFolder(config.folder)


# ---------------------------------------------------------------- a new run


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (refuse, None, ""),
        (interrupt, 130, "ended before it began (SIGINT): nothing was recorded"),
        (break_down, 1, "error: what a library has to say"),
    ],
)
def test_a_run_that_did_not_begin_leaves_nothing_and_is_started_by_the_same_command(
    config: SweepConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[Run], Resolved],
    code: int | None,
    said: str,
) -> None:
    say(monkeypatch, answer)
    if code is None:
        with pytest.raises(RequestError, match="no node can hold"):
            start(config, ["sweep", "run"])
    else:
        assert start(config, ["sweep", "run"]) == code
    out = capsys.readouterr().out
    assert said in " ".join(out.split())
    assert "sweep resume" not in out, "there is nothing to resume"
    assert not (config.storage.parent).exists(), "the folders around it are gone too"

    run = begun(config, monkeypatch)
    assert [session.number for session in read_manifest(run).sessions] == [1]


def test_a_run_has_its_name_once_nodes_have_seen_it_and_all_is_resolved(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, seen)
    monkeypatch.setattr(launcher, "_tune", lambda *given: False)
    assert start(config, ["sweep", "run"]) == 130
    assert [path.name for path in config.storage.iterdir()] == ["run"]
    run = open_run(config.folder)
    assert run.settings is not None and run.settings.folder == config.folder
    (session,) = run.manifest.sessions
    assert session.how is SessionEnd.SIGINT
    assert session.granted is not None and session.granted.cpus_per_trial == 1


def test_a_run_of_that_name_that_was_made_meanwhile_is_left_alone(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = create_run(config, prepare(config), ["another", "driver"])
    before = content(others.path)
    aside = others.path.rename(others.path.with_name("aside"))

    def meanwhile(run: Run) -> Resolved:
        aside.rename(others.path)
        return resolved(run)

    say(monkeypatch, meanwhile)
    with pytest.raises(RequestError, match="must be new, but it exists"):
        start(config, ["sweep", "run"])
    assert content(others.path) == before
    assert [path.name for path in config.storage.iterdir()] == ["run"]


def test_a_partial_run_that_a_kill_left_is_in_nobodys_way(config: SweepConfig) -> None:
    """Not even in that of a process of the same number, of which each container has one."""
    prepared = prepare(config)
    with partial_run(config, prepared, []) as left:
        (left.folder.path / "trials" / "old").mkdir()
        with partial_run(config, prepared, []) as run:
            assert run.folder.path != left.folder.path
            assert give_name(run, run.manifest).trials() == []
        assert left.folder.manifest.exists()


# ---------------------------------------------------------------- a run that is there


@pytest.mark.parametrize(
    "asked",
    [
        ["resume", "resources.cpus_per_trial=99"],
        ["extend", "--epochs", "5", "--space", "wider.yaml"],
        ["extend", "--trials", "+1", "--space", "wider.yaml", "resources.retries=7"],
    ],
)
@pytest.mark.parametrize("answer", [refuse, interrupt])
def test_what_was_asked_of_a_run_and_did_not_begin_is_not_on_record(
    config: SweepConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    answer: Callable[[Run], Resolved],
) -> None:
    """Else the next plain `sweep resume` would be refused for it again."""
    run = begun(config, monkeypatch)
    (tmp_path / "wider.yaml").write_text("trial: {lr: [1.0e-3, 1.0e-4]}")
    monkeypatch.chdir(tmp_path)
    before = run.manifest.read_bytes(), run.config.read_bytes()
    say(monkeypatch, answer)
    command, *rest = asked
    done = CliRunner().invoke(app, [command, str(run.path), *rest])
    assert done.exit_code == (1 if answer is refuse else 130)
    assert isinstance(done.exception, RequestError if answer is refuse else SystemExit)
    assert (run.manifest.read_bytes(), run.config.read_bytes()) == before
    assert run.trials() == []

    say(monkeypatch, resolved)
    monkeypatch.setattr(launcher, "_tune", lambda *given: False)
    assert CliRunner().invoke(app, [command, str(run.path), *rest]).exit_code == 130
    asked_for = open_run(run.path).manifest.configurations
    assert [each.command[0] for each in asked_for] == ["sweep", "sweep"]


# ---------------------------------------------------------------- what the screen said


def said_in(log: Path) -> list[str]:
    """Each line without its time, which must be one."""
    stamped = [
        re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO sweep (.*)", line)
        for line in log.read_text().splitlines()
    ]
    assert all(stamped)
    return [match[1] for match in stamped if match]


def test_the_log_has_what_the_screen_said_with_times_from_before_there_was_a_run(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(config, monkeypatch)
    screen = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert said_in(run.log) == screen
    assert any("table" in line for line in screen[:3])
    assert screen[-1].startswith("interrupted (SIGINT)")

    monkeypatch.setattr(launcher, "_tune", lambda *given: False)
    CliRunner().invoke(app, ["resume", str(run.path), "resources.retries=4"])
    more = said_in(run.log)[len(screen) :]
    assert "resources.retries: 2 → 4" in more[0]
    assert more[-1].startswith("interrupted (SIGINT)")


def test_each_command_of_a_process_keeps_its_own_lines(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook; the lines of one that was refused are in no log."""
    say(monkeypatch, refuse)
    with pytest.raises(RequestError):
        start(config, ["sweep", "run"])
    first = begun(config, monkeypatch)
    second = begun(config.model_copy(update={"name": "second"}), monkeypatch)
    assert len(said_in(first.log)) == len(said_in(second.log)) > 0


def test_a_disk_that_takes_no_log_stops_nothing(
    config: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, text: str) -> Any:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            """There is nothing to close."""

    monkeypatch.setattr("logging.FileHandler._open", lambda self: Full())
    run = begun(config, monkeypatch)
    assert read_manifest(run).sessions[0].how is SessionEnd.SIGINT
