"""The rules of the house: who may import whom, who may touch Ray, and who may reach test images."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "trainable": {"trainable"},
    "sweep": {"trainable", "sweep"},
    "analysis": {"trainable", "sweep", "analysis"},
}
IMPORT_RAY = {
    "trainable/trial.py",
    "sweep/bookkeeper.py",
    "sweep/cluster.py",
    "sweep/launcher.py",
    "sweep/own_ray.py",
    "sweep/scheduler.py",
    "sweep/searcher.py",
    "sweep/workers.py",
}
DESCRIBES_A_SWEEP = {
    "sweep.asha",
    "sweep.config",
    "sweep.open_run",
    "sweep.space",
    "sweep.study",
    "sweep.ranking",
}
MAY_OPEN_TEST_IMAGES = {
    "analysis/final_test.py",
    "trainable/data/__init__.py",
    "trainable/data/images.py",
}
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in ROOT.glob(f"{package}/**/*.py")
)


def imports(file: str) -> Iterator[str]:
    """Modules that `file` imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            module = node.module or ""
            yield from (
                f"{module}.{name.name}"
                if (ROOT / module.replace(".", "/") / f"{name.name}.py").exists()
                else module
                for name in node.names
            )


@pytest.mark.parametrize("file", FILES)
def test_a_package_imports_only_what_stands_before_it(file: str) -> None:
    ours = {module.split(".")[0] for module in imports(file)} & set(PACKAGES)
    assert ours <= PACKAGES[file.split("/")[0]]


@pytest.mark.parametrize("file", FILES)
def test_ray_is_imported_only_where_it_is_meant_to_be(file: str) -> None:
    uses_ray = any(module.split(".")[0] == "ray" for module in imports(file))
    assert uses_ray == (file in IMPORT_RAY)


@pytest.mark.parametrize("file", FILES)
def test_one_file_touches_cuda_by_name(file: str) -> None:
    assert ("torch.cuda" in (ROOT / file).read_text()) == (file == "trainable/device.py")


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("analysis/")])
def test_the_analysis_knows_of_a_sweep_only_what_describes_it(file: str) -> None:
    known = {module for module in imports(file) if module.startswith("sweep")}
    assert known <= DESCRIBES_A_SWEEP
    assert "trainable.trial" not in set(imports(file))


@pytest.mark.parametrize("file", FILES)
def test_only_the_final_test_reaches_test_images(file: str) -> None:
    assert file in MAY_OPEN_TEST_IMAGES or "open_test_data" not in (ROOT / file).read_text()


def test_the_decoding_process_imports_nothing_heavy_and_nothing_of_ours() -> None:
    outside = {module.split(".")[0] for module in imports("trainable/decoding/decoder.py")}
    assert outside - set(sys.stdlib_module_names) == {"PIL", "numpy", "imagehash"}
