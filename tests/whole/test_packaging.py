"""What the files about this project say to indexes, hosts and people agrees: versions, Pythons, make targets, hooks."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
ACTIONS = sorted(ROOT.glob(".github/actions/*/action.yml"))
HOOKS = ROOT / ".pre-commit-config.yaml"
FIRST_AND_LAST = re.compile(r"3\.(\d+) to 3\.(\d+)")
"""How people are told which Pythons there are."""


def read(path: Path) -> Any:
    """A YAML file; `on` is a word there, as workflows mean it, and no truth value."""
    return yaml.load(path.read_text(), yaml.BaseLoader)


def pythons() -> list[int]:
    """The minor versions that may install this, by requires-python."""
    first, behind = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()  # type: ignore[union-attr]
    return list(range(int(first), int(behind)))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows() -> None:
    assert WORKFLOWS and ACTIONS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_a_make_target(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):(?!=)", MAKEFILE, re.MULTILINE))
    commands = [step["run"] for step in steps(path) if "run" in step]
    asked = [command for command in commands if not command.startswith("sudo apt-get ")]
    assert {"make lint", "make types", "make fast", "make test", "make wheel"} <= {*asked}
    for command in asked:
        word, *names = command.split()
        assert word == "make" and {*names} <= targets, command


def test_every_make_target_is_told_of_and_is_no_file() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    opening = MAKEFILE.split("\nPYTHON")[0]
    assert {*re.findall(r"make (\w+):", opening)} | {"venv"} == {*phony.split()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_no_more_and_takes_major_versions_of_actions(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(path) if "uses" in step]
    used += [step["uses"] for action in ACTIONS for step in read(action)["runs"]["steps"]]
    for name in used:
        local = name.startswith("./") and (ROOT / name / "action.yml").is_file()
        assert local or re.fullmatch(r"actions/[\w-]+@v\d+", name), name


def test_the_pythons_are_the_same_wherever_they_are_named() -> None:
    named = [f"3.{minor}" for minor in pythons()]
    classifiers = re.findall(r":: Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.M)
    assert classifiers == named
    (workflow,) = WORKFLOWS
    assert read(workflow)["jobs"]["fast"]["strategy"]["matrix"]["python"] == named
    for action in ACTIONS:
        assert read(action)["inputs"]["version"]["default"] in named
    (tried,) = re.findall(r"for python in (.*) python3;", MAKEFILE)
    assert sorted(tried.split()) == [f"python{version}" for version in named]
    first, behind = pythons()[0], pythons()[-1] + 1
    assert f"(3, {first}) <= sys.version_info < (3, {behind})" in MAKEFILE
    documents = ("README.md", "docs/platforms.md", "CONTRIBUTING.md", "Makefile")
    for place in (*(ROOT / name for name in documents), *ACTIONS):
        told = FIRST_AND_LAST.findall(place.read_text())
        assert told and {*told} == {(str(first), str(behind - 1))}, place


def test_the_hooks_before_a_commit_are_what_continuous_integration_asks() -> None:
    hooks = [hook for repo in read(HOOKS)["repos"] for hook in repo["hooks"]]
    (workflow,) = WORKFLOWS
    style = [step["run"] for step in read(workflow)["jobs"]["style"]["steps"] if "run" in step]
    assert [hook["entry"] for hook in hooks] == style == ["make lint", "make types"]
    assert all(hook["language"] == "system" for hook in hooks)


def test_a_version_is_the_same_wherever_it_is_named() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert citation["repository-code"] == PROJECT["urls"]["Source"]


def test_the_changelog_has_the_sections_that_readers_of_changelogs_know() -> None:
    headings = re.findall(r"^(#+) (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == [("#", "Changelog"), ("##", "[Unreleased]")]
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for level, heading in headings[1:]:
        if level == "##":
            assert re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)
        else:
            assert level == "###" and heading in known


def test_every_constraint_is_one_version_and_every_requirement_is_constrained() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {re.fullmatch(r"([\w.-]+)==\S+", line)[1] for line in lines}  # type: ignore[index]
    plain = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    extras = PROJECT["optional-dependencies"].values()
    asked = PROJECT["dependencies"] + [each for extra in extras for each in extra]
    for requirement in asked:
        name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
        assert re.sub(r"[-_.]+", "-", name).lower() in plain, requirement
