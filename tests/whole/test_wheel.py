"""What a release is made of: a wheel holds what it must and no more, and works where nothing else of the project is."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.project import ROOT
from trainable.installation import PACKAGES
from trainable.records.manifest import read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

pytestmark = [pytest.mark.whole, pytest.mark.system("git"), pytest.mark.timeout(600)]


def tracked(*folders: str) -> set[str]:
    """Files that git knows, or would take, as paths from the project's root."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {name for name in found.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source distribution and, made from it alone, wheel: of a copy of the files that git knows."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    ended = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_the_wheel_holds_every_file_of_the_packages_and_the_licence_and_nothing_else(
    wheel: Path,
) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    facts = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - facts == tracked(*PACKAGES)
    (licence,) = (name for name in facts if name.endswith("/licenses/LICENSE"))
    assert zipfile.ZipFile(wheel).read(licence) == (ROOT / "LICENSE").read_bytes()
    for name in ("trainable", "sweep", "analysis"):
        assert f"{name}/py.typed" in names
    assert "analysis/pages/templates/base.html" in names


def test_an_index_would_take_wheel_and_source_distribution(dist: Path) -> None:
    files = sorted(dist.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    ended = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel, and what it needs borrowed from the environment of the tests."""

    root: Path

    @property
    def site(self) -> Path:
        """Where its own packages lie."""
        where = {"base": str(self.root), "platbase": str(self.root)}
        return Path(sysconfig.get_path("purelib", "venv", where))

    def give(self, *words: object, where: Path) -> subprocess.CompletedProcess[str]:
        """One of its commands, in the folder `where`, without anything that points to the checkout."""
        program, *arguments = map(str, words)
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [self.root / "bin" / program, *arguments],
            cwd=where,
            capture_output=True,
            text=True,
            env=kept | {"SWEEP_STORE": str(where / "store")},
        )


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    venv.create(made.root, with_pip=False, symlinks=True)
    install = ("install", "--quiet", "--no-index", "--no-deps", wheel)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", made.root / "bin" / "python", *install],
        check=True,
    )
    # A folder named in a .pth file is searched last, and .pth files within it are not read: the checkout's is one.
    (made.site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return made


@pytest.mark.ray
def test_the_installed_wheel_sweeps_and_reports_where_no_checkout_is(
    environment: Environment, configure: Callable[..., Path], tmp_path: Path
) -> None:
    user = tmp_path / "user"
    user.mkdir()
    for command in ("sweep", "analysis"):
        said = environment.give(command, "--version", where=user)
        assert said.returncode == 0, said.stderr
        assert said.stdout.endswith(f", in {environment.site}\n")
        helped = environment.give(command, "--help", where=user)
        assert helped.returncode == 0 and "Usage:" in helped.stdout

    config = configure({"lr": [1e-3, 3e-3], "epochs": 1})
    swept = environment.give("sweep", "run", config, "--address", "local", where=user)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    run = RunFolder(tmp_path / "run")
    assert read_manifest(run).project_version in said.stdout
    assert [record.status().status for record in run.trials()] == [Status.FINISHED] * 2
    reported = environment.give("analysis", "report", run.path, where=user)
    assert reported.returncode == 0, reported.stdout + reported.stderr
    page = (run.path / "report.html").read_text()
    assert all(record.trial_id in page for record in run.trials())
