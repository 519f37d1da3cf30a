"""Which code this is: its version, commit, place and digest, installed or not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT
from trainable import installation


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the code might lie in, with a file of each package."""
    for package in installation.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    monkeypatch.setattr(installation, "place", lambda: tmp_path)
    return tmp_path


def distribution(site: Path, **facts: object) -> None:
    """What pip leaves of an installation in `site`; `facts` are those of direct_url.json."""
    info = site / "face_attribute_sweep-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: face-attribute-sweep\nVersion: 9.9\n"
    )
    if facts:
        (info / "direct_url.json").write_text(json.dumps(facts))


def test_the_version_is_that_of_the_distribution_whose_code_this_is(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed, or in a checkout of which an installation is only a link; another clone's version is not ours."""
    site, address = tmp_path_factory.mktemp("site"), checkout.as_uri()
    monkeypatch.syspath_prepend(str(site))
    distribution(site, url=address, dir_info={"editable": True})
    assert installation.version() == "9.9"
    for facts in (
        {"url": address, "dir_info": {}},
        {"url": "file:///elsewhere", "dir_info": {"editable": True}},
    ):
        (site / "face_attribute_sweep-9.9.dist-info" / "direct_url.json").write_text(
            json.dumps(facts)
        )
        assert installation.version() == "not installed"
    monkeypatch.setattr(installation, "place", lambda: site)
    assert installation.version() == "9.9"


def test_what_is_not_installed_has_no_version(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Python knows no site-packages of ours."""
    monkeypatch.setattr(sys, "path", [])
    assert installation.version() == "not installed"
    assert installation.version_of("torch") == "not installed"
    assert installation.installation_said() == (
        f"face-attribute-sweep not installed, in {checkout}"
    )


@pytest.mark.system("git")
def test_a_copy_in_somebody_elses_checkout_has_no_commit_of_theirs(checkout: Path) -> None:
    """As in a virtual environment within a project of the user's."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", checkout, *who, *arguments], check=True, capture_output=True)

    assert installation.git_state() == (None, None)
    git("init")
    (checkout / "theirs").write_text("")
    git("add", "theirs")
    git("commit", "-m", "theirs")
    assert installation.git_state() == (None, None)
    git("add", "trainable")
    git("commit", "-m", "ours")
    commit, dirty = installation.git_state()
    assert commit is not None and len(commit) == 40 and dirty
    assert commit[:12] in installation.installation_said()


def test_the_digest_changes_with_any_file_of_the_code(checkout: Path) -> None:
    digests = [installation.code_digest()]
    for change in (
        lambda: (checkout / "sweep" / "more.py").write_text("a"),
        lambda: (checkout / "sweep" / "more.py").write_text("b"),
        lambda: (checkout / "sweep" / "more.py").rename(checkout / "sweep" / "less.py"),
    ):
        change()
        digests.append(installation.code_digest())
    assert len(set(digests)) == 4
    (checkout / "tests.py").write_text("no part of it")
    assert installation.code_digest() == digests[-1]


@pytest.mark.whole
@pytest.mark.parametrize("command", ["sweep", "analysis"])
def test_the_commands_work_in_a_checkout_that_is_not_installed(
    tmp_path: Path, command: str
) -> None:
    """Python is told to know no site-packages of ours: what is needed of others is a folder on its path."""
    copy = tmp_path / "clone"
    for package in installation.PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    program = """
import importlib.metadata, runpy, sys
found = importlib.metadata.distribution
def none_of_ours(name):
    if name == "face-attribute-sweep":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.distribution = none_of_ours
command = sys.argv.pop(1)
sys.path.insert(0, "")
runpy.run_module(command, run_name="__main__", alter_sys=True)
"""
    for asked, said in (
        ("--version", f"face-attribute-sweep not installed, in {copy}"),
        ("-h", "Usage"),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", program, command, asked],
            cwd=copy,
            capture_output=True,
            text=True,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert said in ended.stdout
