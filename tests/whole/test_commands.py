"""What both commands and all of theirs have, and what `make clean` leaves."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import analysis.__main__
import sweep.__main__
from tests.support.project import ROOT
from trainable.installation import installation_said

APPS = {"sweep": sweep.__main__.app, "analysis": analysis.__main__.app}
COMMANDS = [
    (name, command)
    for name, app in APPS.items()
    for command in ("", *typer.main.get_command(app).commands)  # type: ignore[attr-defined]
]


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_command_shows_its_help_with_one_dash_and_with_two(name: str, command: str) -> None:
    words = [command] if command else []
    short, long = (CliRunner().invoke(APPS[name], [*words, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.output == long.output and "Usage:" in short.output


@pytest.mark.parametrize("name", APPS)
def test_a_command_starts_without_what_only_some_of_its_subcommands_need(name: str) -> None:
    """Help and refusals need not wait for Ray and torch to be imported."""
    heavy = "ray", "torch", "optuna", "pandas", "sklearn"
    code = f"import sys, {name}.__main__; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("asked", ["a run", "all runs"])
def test_a_status_is_shown_without_ray_and_torch(asked: str, unchanged: Path) -> None:
    """Those of `analysis` are watched in tests/analysis/frames/test_snapshot.py."""
    run = [str(unchanged)] if asked == "a run" else ["--storage", str(unchanged.parent)]
    code = (
        "import sys; from sweep.__main__ import app\n"
        "app(['status', *sys.argv[1:]], standalone_mode=False)\n"
        "sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *run], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and b"finished" in done.stdout


@pytest.mark.parametrize("name", APPS)
def test_every_subcommand_is_in_the_architecture_and_in_its_files_first_line(name: str) -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    (line,) = re.findall(rf"^  __main__.py +{name} (.+)$", page, re.MULTILINE)
    first = (sys.modules[f"{name}.__main__"].__doc__ or "").splitlines()[0]
    commands = [command for app, command in COMMANDS if app == name and command]
    assert sorted(line.split(" | ")) == sorted(commands)
    assert sorted(re.findall(r"[a-z]+", first.partition(":")[2])) == sorted(commands)


@pytest.mark.parametrize("name", APPS)
def test_a_command_says_its_version(name: str) -> None:
    said = CliRunner().invoke(APPS[name], ["--version"])
    assert (said.exit_code, said.output) == (0, installation_said() + "\n")


@pytest.mark.system("make")
def test_make_clean_leaves_peoples_runs_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("runs/mine", "runs/demo", ".venv", "examples/demo/data"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "runs/mine/file"}
