"""The rules of the house: who may import whom, who may touch Ray and CUDA, and who may reach test images."""

import ast
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from graphlib import TopologicalSorter

from tests.support.project import ROOT, nodes

BEFORE = {  # whom a package may import
    "trainable": {"trainable"},
    "sweep": {"trainable", "sweep"},
    "analysis": {"trainable", "sweep", "analysis"},
}
IMPORT_RAY = ("sweep/on_ray/", "trainable/trial.py")
DRIVE_RAY = ("sweep/on_ray/", "sweep/__main__.py")
DESCRIBE_A_SWEEP = ("sweep.request.", "sweep.search.")
OPEN_TEST_IMAGES = {
    "analysis/final_test.py",
    "trainable/data/__init__.py",
    "trainable/data/images.py",
}
OPEN_GIVEN_IMAGES = {"analysis/winner/predict.py", "trainable/data/given.py"}
"""Images that a person names: they may be test images, which the first of these asks before any is decoded."""
MOST_FILES, MOST_PARAMETERS, MOST_LINES = 12, 6, 60
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in BEFORE
    for path in ROOT.glob(f"{package}/**/*.py")
)


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(file) for file in FILES}


@cache
def imports(file: str) -> frozenset[str]:
    """Modules that `file` imports, anywhere in it: at once, when a function is called, or for types only."""
    return frozenset(_imports(file))


def _imports(file: str) -> Iterator[str]:
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            module = node.module or ""
            for name in node.names:
                yield f"{module}.{name.name}" if f"{module}.{name.name}" in MODULES else module


def room_of(module: str) -> str:
    """The folder that a file lies in below its package, with what lies deeper; a package's own file is its own room."""
    return ".".join(module.split(".")[:2])


def no_circle(graph: dict[str, Collection[str]]) -> None:
    """Raises graphlib.CycleError, which names those in it."""
    TopologicalSorter(graph).prepare()


def test_a_package_imports_only_what_stands_before_it() -> None:
    for file in FILES:
        ours = {module.split(".")[0] for module in imports(file)} & {*BEFORE, "benchmarks", "tests"}
        assert ours <= BEFORE[file.split("/")[0]], file


def test_no_files_import_each_other_in_a_circle() -> None:
    no_circle({module_of(file): imports(file) & MODULES for file in FILES})


def test_no_rooms_import_each_other_in_a_circle() -> None:
    """Nor a room and a file outside the rooms: a configuration stands below them, a command above."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        room = room_of(module_of(file))
        graph.setdefault(room, set()).update(map(room_of, imports(file) & MODULES))
    no_circle({room: others - {room} for room, others in graph.items()})


def test_nothing_is_imported_by_a_name_that_is_made_at_run_time() -> None:
    """So that the other tests here see all imports."""
    for file in FILES:
        names = {n.id for n in nodes(file) if isinstance(n, ast.Name)}
        assert not names & {"__import__", "import_module", "importlib"}, file


def functions(file: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(file):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_room_is_crowded() -> None:
    files = Counter(file.rpartition("/")[0] for file in FILES if not file.endswith("__init__.py"))
    assert not {room: count for room, count in files.items() if count > MOST_FILES}


def test_no_function_is_long_or_takes_much() -> None:
    """A command may take more, since its parameters are its options; the training loop is longer."""
    for file in FILES:
        for function in functions(file):
            name, given = f"{file}: {function.name}", function.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            taken = sum(each.arg not in ("self", "cls") for each in named)
            assert taken <= MOST_PARAMETERS or file.endswith("__main__.py"), name
            lines = (function.end_lineno or 0) - function.lineno + 1
            assert lines <= MOST_LINES or name == "trainable/fit.py: fit", name


def test_ray_is_imported_only_by_the_trainable_and_in_the_room_on_ray() -> None:
    users = [f for f in FILES if any(m.split(".")[0] == "ray" for m in imports(f))]
    assert all(file.startswith(IMPORT_RAY) for file in users), users
    assert "trainable/trial.py" in users


def test_only_the_commands_reach_what_drives_ray() -> None:
    users = [f for f in FILES if any(m.startswith("sweep.on_ray") for m in imports(f))]
    assert all(file.startswith(DRIVE_RAY) for file in users), users
    users = [f for f in FILES if "trainable.trial" in imports(f)]
    assert all(file.startswith("sweep/on_ray/") for file in users), users


def test_one_file_touches_cuda_by_name() -> None:
    def touches(file: str) -> bool:
        imported = (node for node in nodes(file) if isinstance(node, ast.ImportFrom))
        names = {(node.module, name.name) for node in imported for name in node.names}
        return "torch.cuda" in (ROOT / file).read_text() or ("torch", "cuda") in names

    assert list(filter(touches, FILES)) == ["trainable/hardware/device.py"]


def test_the_analysis_knows_of_a_sweep_only_what_describes_it() -> None:
    for file in FILES:
        if file.startswith("analysis/"):
            known = {module for module in imports(file) if module.split(".")[0] == "sweep"}
            assert all(module.startswith(DESCRIBE_A_SWEEP) for module in known), file


def test_only_the_final_test_reaches_test_images() -> None:
    reach = {file for file in FILES if "open_test_data" in (ROOT / file).read_text()}
    assert reach == OPEN_TEST_IMAGES


def test_images_that_a_person_names_are_opened_by_one_file_which_asks_the_seal() -> None:
    reach = {file for file in FILES if "given_images" in (ROOT / file).read_text()}
    assert reach == OPEN_GIVEN_IMAGES
    text = (ROOT / "analysis/winner/predict.py").read_text()
    asked = text.index("refuse_sealed(self.run")
    assert asked < text.index("_decodable(given") and text.count("given_images(") == 1


def test_the_decoding_process_imports_nothing_heavy_and_nothing_of_ours() -> None:
    outside = {module.split(".")[0] for module in imports("trainable/data/decoding/decoder.py")}
    assert outside - set(sys.stdlib_module_names) == {"PIL", "numpy", "imagehash"}
