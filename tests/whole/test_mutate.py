"""`benchmarks/mutate.py`, which says whether the tests of a module notice when it is wrong, is right itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import mutate
from tests.support.project import ROOT

pytestmark = pytest.mark.whole

BLIND = """
from benchmarks import mutate

mutate.TESTS["benchmarks/mutate.py"] = ["tests/sweep/search/test_asha.py"]
mutate.main()
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, *command)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("module", mutate.TESTS)
def test_each_module_that_decides_has_tests_and_something_to_change(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert all(Path(test).is_file() for test in mutate.tests_of(module))
    assert list(mutate.places(ast.parse(Path(module).read_text())))


def test_nine_of_ten_are_enough() -> None:
    assert [mutate.is_enough(seen, 10) for seen in (8, 9, 10)] == [False, True, True]


def test_changes_that_tests_notice_are_counted() -> None:
    said = run("benchmarks/mutate.py", "sweep/search/asha.py", "--count", "2")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("sweep/search/asha.py: 2 of 2 noticed, 100% ")


def test_changes_that_no_test_notices_are_shown_and_fail_the_command() -> None:
    said = run("-c", BLIND, "benchmarks/mutate.py", "--count", "2")
    assert said.returncode == 1
    assert said.stderr == "tests must notice at least 90%, but fewer in benchmarks/mutate.py\n"
    *changes, total = said.stdout.splitlines()
    assert len(changes) == 2 and all("  →  " in change for change in changes)
    assert total.startswith("benchmarks/mutate.py: 0 of 2 noticed, 0% ")
