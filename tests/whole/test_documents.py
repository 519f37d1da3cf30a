"""What the documents and examples say is so."""

import re
from pathlib import Path
from typing import get_args

import pytest

from benchmarks import documents
from sweep.request.config import Method, load_config
from sweep.request.space import Choice
from tests.support.project import DOCUMENTS, ROOT
from trainable.config import HEADS, TrialConfig
from trainable.metric import Metric

PACKAGES = ("trainable", "sweep", "analysis")
CONFIGURE = ROOT / "docs" / "how-to" / "configure.md"


def tree() -> dict[str, set[str]]:
    """Folder → files, as the last block of the architecture lists them."""
    page = ROOT / "docs" / "explanation" / "architecture.md"
    block = page.read_text().split("## Where things are")[1].split("```text")[1].split("```")[0]
    found: dict[str, set[str]] = {}
    folder = ""
    for line in block.strip().splitlines():
        if not line.startswith(" "):
            folder = line.split("/")[0]
            found[folder] = set()
        else:
            found[folder].update(re.findall(r"^  (\S+)", line))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_lists_every_room_and_file_of_a_package(package: str) -> None:
    inside = [
        path
        for path in (ROOT / package).iterdir()
        if any(path.glob("**/*.py"))  # a room; what is left of one that moved holds none
        or (path.is_file() and path.name[:2] != "__" and path.name != "py.typed")
        or path.name == "__main__.py"
    ]
    assert tree()[package] == {path.name + "/" * path.is_dir() for path in inside}


def test_every_file_that_the_architecture_names_is_there() -> None:
    """By its path from the top, a package or a room; files of a run folder are named too, and left out here."""
    page = (
        (ROOT / "docs" / "explanation" / "architecture.md").read_text().split("## Where things")[0]
    )
    packages = [ROOT / package for package in PACKAGES]
    rooms = [
        ROOT,
        *packages,
        *(path for top in packages for path in top.rglob("*") if path.is_dir()),
    ]
    named = {
        text.rstrip("/")
        for text in re.findall(r"`([\w/.]+)`", page)
        if "/" in text and not text.startswith(("trials/", "sessions/", "results/", "config/"))
    }
    missing = {
        name
        for name in named
        if not any((room / name).exists() or (room / f"{name}.py").exists() for room in rooms)
    }
    assert not missing and len(named) > 40, missing


def headings(document: Path) -> set[str]:
    """What a link may name after `#`: a heading in small letters, without punctuation, blanks as hyphens."""
    found = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_picture_of_the_documents_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith("http"):
            path, _, heading = target.partition("#")
            leads_to = document.parent / path if path else document
            assert leads_to.exists(), f"it points to {target}"
            assert not heading or heading in headings(leads_to), f"it points to {target}"


def test_every_document_that_the_code_and_the_examples_name_is_there() -> None:
    for folder in (*PACKAGES, "benchmarks", "docs", "examples", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".toml", ".ipynb"):
                for named in re.findall(r"docs/[\w./-]+\.md", path.read_text()):
                    assert (ROOT / named).is_file(), f"{path.relative_to(ROOT)} names {named}"


@pytest.mark.parametrize("document", documents.TABLES, ids=lambda path: path.name)
def test_the_tables_of_speed_are_made_from_the_raw_figures(document: Path) -> None:
    assert document.read_text() == documents.renewed(document), "run python benchmarks/documents.py"


def test_the_examples_are_the_settings_of_the_two_reports() -> None:
    smiling = load_config(ROOT / "examples" / "smiling.yaml")
    points = [smiling.space.settings(point) for point in smiling.space.points()]
    assert sorted(p.strategy for p in points) == ["block5", "head"]
    for point in points:
        assert (point.augmentation, point.lr, point.optimizer, point.head) == (
            "flip_jitter",
            1e-4,
            "adam",
            "mlp",
        )
        assert (point.batch_size, point.dropout, smiling.epochs) == (32, 0.5, 10)

    gender = load_config(ROOT / "examples" / "gender.yaml")
    points = [gender.space.settings(point) for point in gender.space.points()]
    assert {(p.strategy, p.lr) for p in points} == {
        (strategy, lr) for strategy in ("head", "block5") for lr in (1e-3, 1e-4)
    }
    for point in points:
        assert (point.augmentation, point.head, point.batch_size) == ("flip", "pretrained", 64)
    for config in (smiling, gender):
        assert config.asha is None and config.guards.collapse_epochs is None
        assert config.data.split.seed == 42


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/**/*.yaml")), ids=lambda path: path.name
)
def test_every_example_loads_and_says_what_it_is_for(path: Path) -> None:
    load_config(path)
    head = path.read_text().split("\n")[0]
    assert head.startswith("# ")


def test_the_search_example_searches() -> None:
    config = load_config(ROOT / "examples" / "search.yaml")
    assert len(config.space.dimensions) >= 4
    assert any(isinstance(d.domain, Choice) and d.when for d in config.space.dimensions)


def test_the_configuration_in_the_documents_lists_the_values_that_the_code_knows() -> None:
    """Where a line of the configuration says `a | b | c` behind a setting's name and its example."""
    block = CONFIGURE.read_text().split("```yaml\n")[1].split("```")[0]

    def listed(line: str) -> list[str]:
        (found,) = re.findall(rf"^ *{line}.*# *(.*)$", block, re.MULTILINE)
        return [re.match(r"[\w]+", word.strip())[0] for word in found.split(" | ")]  # type: ignore[index]

    for setting in ("strategy", "optimizer"):
        assert listed(f"{setting}: ") == list(
            get_args(TrialConfig.model_fields[setting].annotation)
        )
    assert listed("search: ") == list(get_args(Method))
    assert {*listed("metric: "), load_config(ROOT / "examples/search.yaml").metric} == {*Metric}
    assert listed("head: ")[:-1] == list(HEADS)


def test_the_configuration_in_the_documents_is_one(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(CONFIGURE.read_text().split("```yaml\n")[1].split("```")[0])
    assert load_config(path).trials == 24
