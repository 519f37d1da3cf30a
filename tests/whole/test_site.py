"""The documentation: made from the code where it can be, run where it is code, and a site that builds."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from analysis.__main__ import app as analysis_app
from docs import make_reference
from sweep.__main__ import app as sweep_app
from sweep.request.config import SweepConfig
from tests.support.faces import picture
from tests.support.project import DOCUMENTS, ROOT

APPS: dict[str, Any] = {
    "sweep": typer.main.get_command(sweep_app),
    "analysis": typer.main.get_command(analysis_app),
}
OF_ALL = {"--help", "-h", "--version"}


def blocks(document: Path, *languages: str) -> list[str]:
    """The text of its fenced blocks in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


# ---------------------------------------------------------------- made from the code


@pytest.mark.parametrize("page", make_reference.PAGES)
def test_a_page_of_the_reference_is_what_the_code_makes_of_it(page: str) -> None:
    made = make_reference.PAGES[page]()
    assert (make_reference.REFERENCE / page).read_text() == made, "python docs/make_reference.py"


def test_the_reference_says_of_every_key_what_it_means() -> None:
    page = make_reference.configuration_page()
    for line in page.splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
    assert all(f"## `{name}`" in page for name in make_reference.sections(SweepConfig))


# ---------------------------------------------------------------- what one types


def typed_lines() -> Iterator[tuple[str, str]]:
    """Document and line of each command: in shell blocks, and within sentences."""
    for document in DOCUMENTS:
        name = str(document.relative_to(ROOT))
        for block in blocks(document, "", "sh", "bash"):
            for line in block.splitlines():
                yield name, line
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        if name not in ("CHANGELOG.md", "docs/log.md"):  # which tell of what was
            for inline in re.findall(r"`((?:sweep|analysis|make|python) [^`]+)`", text):
                yield name, inline


def test_every_command_of_the_documents_has_the_options_that_it_is_given() -> None:
    checked = 0
    for document, line in typed_lines():
        program = line.partition(" ")[0].rpartition("/")[2]
        if program not in (*APPS, "make", "python"):
            continue
        words, where = shlex.split(line, comments=True), f"{document}: {line}"
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
        if program in APPS:
            if words[1] in OF_ALL:
                continue
            assert words[1] in APPS[program].commands, where
            parameters = APPS[program].commands[words[1]].params
            known = {name for p in parameters for name in (*p.opts, *p.secondary_opts)}
            assert options <= known | OF_ALL, where
        elif program == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(f"\n{t}:" in (ROOT / "Makefile").read_text() for t in targets), where
        elif words[1].endswith(".py"):
            source = (ROOT / words[1]).read_text()
            assert all(f'"{option}"' in source for option in options), where
        checked += 1
    assert checked > 100


# ---------------------------------------------------------------- Python


def python_blocks() -> list[Any]:
    """Each block once, wherever it stands; one that starts a sweep needs Ray."""
    found: dict[str, str] = {}
    for document in DOCUMENTS:
        for number, block in enumerate(blocks(document, "python"), 1):
            found.setdefault(block, f"{document.relative_to(ROOT)}, {number}")
    return [
        pytest.param(block, id=name, marks=[pytest.mark.ray] if "sweep.run(" in block else [])
        for block, name in found.items()
    ]


@pytest.fixture(scope="module")
def project(unchanged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` leaves, with fewer faces: images, table, backbone, and a run; and some images of one's own."""
    folder = tmp_path_factory.mktemp("project")
    demo = folder / "examples" / "demo"
    demo.mkdir(parents=True)
    for name in ("sweep.yaml", "backbone.safetensors"):
        shutil.copy(ROOT / "examples" / "demo" / name, demo)
    faces = [sys.executable, str(ROOT / "examples/demo/faces.py"), "60", str(demo / "data")]
    subprocess.run([*faces, "--jobs", "1"], check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(unchanged, folder / "runs" / "demo")
    (folder / "new").mkdir()
    for number, name in enumerate(("one.jpg", "new/two.jpg", "new/three.png"), 1000):
        picture(1, number, 40).save(folder / name)
    return folder


@pytest.mark.whole
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", python_blocks())
def test_the_python_of_the_documents_runs_as_it_is_written(
    block: str,
    project: Path,
    tmp_path: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    if "sweep.run(" in block:  # a program of its own: Ray sets handlers and variables
        checked = f"{block}\nassert exit_code == 0 and (config.folder / 'manifest.json').exists()"
        subprocess.run([sys.executable, "-c", checked], check=True)
        return
    threads = torch.get_num_threads()
    names: dict[str, Any] = {}
    try:
        exec(compile(block, "block", "exec"), names)
    finally:
        torch.set_num_threads(threads)
    if "said" in names:
        assert len(names["said"]) == 3


# ---------------------------------------------------------------- the site


@pytest.mark.whole
def test_the_site_builds_without_a_warning_and_asks_nothing_of_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    documents = [page for page in DOCUMENTS if page.is_relative_to(ROOT / "docs")]
    assert len(pages) >= len(documents)
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', page.read_text())
        loaded += re.findall(
            r'<link[^>]* rel="(?:stylesheet|preload|icon)" href="([^"]+)"', page.read_text()
        )
        assert loaded and not [source for source in loaded if "//" in source], page.name
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), (
            style.name
        )
