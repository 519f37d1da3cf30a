"""How tests are run; what they begin with is in tests/support/fixtures.py."""

import atexit
import gc
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import settings

gc.disable()  # while libraries and tests are imported, which stay
settings.register_profile("project", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)  # of `make fast`
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """A process that only tells others what to test does without torch, which takes seconds to import.

    What `make fast` need not wait for: that a disk has what is written, which it would have only after a power cut.
    What depends on it is tested with a simulated disk, and by counting calls.
    """
    tells_others = config.getoption("numprocesses", None) and not config.option.collectonly
    if not tells_others or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("tests.support.fixtures")
    else:
        gc.enable()
    if config.getoption("hypothesis_profile") == "fast":
        os.fsync = lambda fd: None


def pytest_collection_finish() -> None:
    """Libraries and tests stay to the end: the garbage collector need not look at them again and again."""
    gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries complain of what is left at the end


# ---------------------------------------------------------------- programs from outside Python

_left_out: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `system(program)` where the program is not installed, and remember to say so. Ray leaves
    sockets, pipes and processes open in the process that started it: these warnings are not the test's.
    """
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
    lacking = {
        item: program
        for item in items
        for mark in item.iter_markers("system")
        for program in mark.args
        if shutil.which(program) is None
    }
    if lacking:
        items[:] = [item for item in items if item not in lacking]
        config.hook.pytest_deselected(items=list(lacking))
        _left_out.extend(f"{item.nodeid} (needs {program})" for item, program in lacking.items())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """What Ray left open goes with the test that used it, and not during another one."""
    yield
    if item.get_closest_marker("ray"):
        gc.collect()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was left out, and the seconds of each family of tests, a line a folder: which make the suite slow."""
    for line in _left_out:
        terminalreporter.write_line(f"left out: {line}")
    seconds: defaultdict[str, float] = defaultdict(float)
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                family = report.nodeid.partition("::")[0].rpartition("/")[0]
                seconds[family] += report.duration
                tests[family] += report.when == "call"
    if sum(tests.values()) < 100:
        return
    terminalreporter.section("seconds a family of tests, summed over processes")
    for family, spent in sorted(seconds.items(), key=lambda each: -each[1]):
        terminalreporter.line(f"{spent:8.1f} s  {tests[family]:5d} tests  {family}")
