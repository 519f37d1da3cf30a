"""Do a module's tests notice when it is wrong? Changes one comparison, operator, and/or or number at a time.

python benchmarks/mutate.py [MODULE.py ...] [--count 40] [--seed 0]

Each change is made in a copy of the working tree; the module's fast tests run there in a fork with the libraries
already loaded. Changes that no test noticed are printed: some do not matter (a message, a pause), so check each.
Without MODULE: all modules that decide something, in `TESTS`. Exit code 1: fewer than nine of ten were noticed.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TESTS: Final = {  # besides the test with its own name, if there is one
    "sweep/search/asha.py": [],
    "sweep/search/ranking.py": [],
    "sweep/request/space.py": [],
    "sweep/on_ray/scheduler.py": [],
    "sweep/session/rungs.py": ["tests/sweep/on_ray/test_scheduler.py"],
    "sweep/session/hold.py": [],
    "sweep/frozen/policy.py": [],
    "trainable/data/split.py": [],
    "trainable/data/views.py": [],
    "trainable/data/tables/table.py": ["tests/trainable/data/tables/test_tables.py"],
    "trainable/metric.py": [],
    "trainable/fit.py": [],
    "trainable/network/model.py": [],
    "trainable/frozen/store.py": [],
    "trainable/frozen/shared.py": [],
    "trainable/records/trial_folder.py": [],
    "trainable/records/paths.py": ["tests/trainable/records/test_trial_folder.py"],
    "trainable/records/state.py": [],
    "analysis/statistics.py": [],
    "analysis/frames/ledger.py": [],
}
LEFT_OUT: Final = (".venv", ".git", "runs", "__pycache__", "*_cache", ".hypothesis", "*.egg-info")
LIBRARIES: Final = (  # imported by tests and never changed
    "hypothesis",
    "optuna",
    "pandas",
    "plotly",
    "pytest",
    "ray.tune.schedulers",
    "sklearn.metrics",
    "sklearn.model_selection",
    "statsmodels.stats.proportion",
    "torchvision.transforms.v2",
)
ENOUGH: Final = 0.9  # of a module's changes
SLOWER: Final = (
    5  # times the tests' own time, plus as many seconds: a hanging test counts as noticing
)

OTHER: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def places(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can be changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if len(node.ops) == 1 and type(node.ops[0]) in OTHER:
                yield node
        elif isinstance(node, ast.BinOp | ast.BoolOp):
            if type(node.op) in OTHER:
                yield node
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield node


def changed(text: str, place: int) -> tuple[str, str]:
    """The source with one change, and a description of it."""
    tree = ast.parse(text)
    node = list(places(tree))[place]
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        node.ops = [OTHER[type(node.ops[0])]()]  # type: ignore[list-item]
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = OTHER[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.Constant):
        node.value += 1  # type: ignore[operator]
    return ast.unparse(tree), f"{node.lineno}: {before[:80]}  →  {ast.unparse(node)[:80]}"  # type: ignore[attr-defined]


def tests_of(module: str) -> list[str]:
    """Test files in the current folder, the copy: the one with the module's own name, and those in `TESTS`."""
    path = Path(module)
    own = f"tests/{path.parent}/test_{path.name}"
    found = [*([own] if Path(own).exists() else []), *TESTS.get(module, [])]
    if not found:
        sys.exit(f"{module} must have tests in {own}, but there is no such file")
    return found


def passes(tests: list[str], seconds: float) -> bool:
    """Run tests in a fork, in the copy's folder, for at most `seconds`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        said = os.open("said.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        code = 1
        try:
            code = _run(tests)
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run(tests: list[str]) -> int:
    import pytest
    from hypothesis import Phase, settings

    # no need to shrink the example that notices a change; the same examples each time
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutate", deadline=None, max_examples=50, derandomize=True, phases=phases
    )
    only = "not ray and not slow and not system and not gpu and not whole"
    without = ("-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile", "mutate")
    known = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # the parent has loaded hypothesis
    code = int(pytest.main(["-x", "-m", only, *known, *without, *tests]))
    import trainable

    assert Path(trainable.__file__).is_relative_to(Path.cwd()), "the tests must run on the copy"
    return code


def noticed(module: str, count: int, seed: int, copy: Path) -> tuple[int, int]:
    """How many changes its tests notice, and of how many; prints the others."""
    path, tests = copy / module, tests_of(module)
    text = path.read_text()
    found = range(len(list(places(ast.parse(text)))))
    chosen = random.Random(seed).sample(found, min(count, len(found)))
    began = time.monotonic()
    if not passes(tests, 1800.0):
        print(Path("said.txt").read_text()[-2000:])
        sys.exit(f"{module}: its tests fail as they are ({' '.join(tests)})")
    longest = SLOWER * (time.monotonic() - began + 1)
    lived = 0
    try:
        for place in chosen:
            source, said = changed(text, place)
            path.write_text(source)
            if passes(tests, longest):
                lived += 1
                print(f"  {module}:{said}", flush=True)
    finally:
        path.write_text(text)
    seen = len(chosen) - lived
    share = f"{seen / len(chosen):.0%}" if chosen else "nothing to change"
    print(f"{module}: {seen} of {len(chosen)} noticed, {share} ({len(found)} places)", flush=True)
    return seen, len(chosen)


def is_enough(seen: int, of: int) -> bool:
    return seen >= ENOUGH * of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--count", type=int, default=40, help="random changes per module")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        os.chdir(copy)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        sys.path[:] = [str(copy), *(path for path in sys.path if Path(path).resolve() != ROOT)]
        for library in LIBRARIES:
            import_module(library)
        found = {module: noticed(module, asked.count, asked.seed, copy) for module in asked.modules}
        if few := [module for module, (seen, of) in found.items() if not is_enough(seen, of)]:
            sys.exit(f"tests must notice at least {ENOUGH:.0%}, but fewer in {', '.join(few)}")


if __name__ == "__main__":
    main()
