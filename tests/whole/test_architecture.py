"""The rules of the house: who may import whom, who may touch Ray and CUDA, and who may reach test images."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "trainable": {"trainable"},
    "sweep": {"trainable", "sweep"},
    "analysis": {"trainable", "sweep", "analysis"},
}
RAY = ("sweep/on_ray/", "trainable/trial.py")
DESCRIBES_A_SWEEP = ("sweep.request", "sweep.search")
OPENS_TEST_IMAGES = (
    "analysis/final_test.py",
    "trainable/data/__init__.py",
    "trainable/data/images.py",
)
DRIVES = ("sweep/__init__.py", "sweep/__main__.py", "sweep/on_ray/")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in ROOT.glob(f"{package}/**/*.py")
)


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(file) for file in FILES}


@cache
def imports(file: str, *, at_once: bool = False) -> tuple[str, ...]:
    """Modules that `file` imports, anywhere in it, or as soon as it is imported itself."""
    return tuple(_imports(file, at_once))


def _imports(file: str, at_once: bool) -> Iterator[str]:
    tree = ast.parse((ROOT / file).read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            module = node.module or ""
            for name in node.names:
                yield f"{module}.{name.name}" if f"{module}.{name.name}" in MODULES else module


@pytest.mark.parametrize("file", FILES)
def test_a_package_imports_only_what_stands_before_it(file: str) -> None:
    ours = {module.split(".")[0] for module in imports(file)} & set(PACKAGES)
    assert ours <= PACKAGES[file.split("/")[0]]


def test_no_files_import_each_other_in_a_circle() -> None:
    """Packages' own files count as read with every module below them."""
    graph = {
        module_of(file): {each for each in imports(file, at_once=True) if each in MODULES}
        for file in FILES
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("file", FILES)
def test_ray_is_imported_only_by_the_trainable_and_in_the_room_on_ray(file: str) -> None:
    if any(module.split(".")[0] == "ray" for module in imports(file)):
        assert file.startswith(RAY)


@pytest.mark.parametrize("file", FILES)
def test_what_drives_ray_is_imported_only_by_the_commands_that_need_it(file: str) -> None:
    if any(module.startswith("sweep.on_ray") for module in imports(file)):
        assert file.startswith(DRIVES)


@pytest.mark.parametrize("file", FILES)
def test_one_file_touches_cuda_by_name(file: str) -> None:
    touches = "torch.cuda" in (ROOT / file).read_text()
    assert touches == (file == "trainable/hardware/device.py")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("analysis/")])
def test_the_analysis_knows_of_a_sweep_only_what_describes_it(file: str) -> None:
    known = {module for module in imports(file) if module.startswith("sweep")}
    assert all(module.startswith(DESCRIBES_A_SWEEP) for module in known)
    assert "trainable.trial" not in imports(file)


@pytest.mark.parametrize("file", FILES)
def test_only_the_final_test_reaches_test_images(file: str) -> None:
    if "open_test_data" in (ROOT / file).read_text():
        assert file in OPENS_TEST_IMAGES


def test_the_decoding_process_imports_nothing_heavy_and_nothing_of_ours() -> None:
    outside = {module.split(".")[0] for module in imports("trainable/data/decoding/decoder.py")}
    assert outside - set(sys.stdlib_module_names) == {"PIL", "numpy", "imagehash"}
