"""Small folders of real JPEG files with their tables, in the layouts that people have, and short trials on them."""

import gc
import hashlib
import os
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import settings
from PIL import Image

from tests.support import processes
from trainable.config import DataConfig, RunSettings, SplitConfig, TrialConfig
from trainable.data import (
    LabelledImages,
    TrainingData,
    add_digests,
    make_split,
    open_table,
    open_training_data,
)
from trainable.fit import fit, predict
from trainable.frozen.reference import evaluation_batches
from trainable.network.model import Backbone, TransferVGG16, load_backbone
from trainable.records.rows import RESULT_COLUMNS, Outcome, Row
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

settings.register_profile("project", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)  # of `make fast`
settings.load_profile("project")

WIDTH = 0.05  # of VGG-16's channels: a step takes milliseconds


@dataclass(frozen=True)
class Faces:
    """A folder of images and what its table says: `Smiling` can be seen in the picture, `Male` can't."""

    images: Path
    table: Path
    files: tuple[str, ...]
    smiling: tuple[int, ...]
    """-1 or 1 for each file."""
    male: tuple[int, ...]


def sha256_of(faces: Faces) -> tuple[str, ...]:
    """Digest of each file as it is now."""
    contents = ((faces.images / file).read_bytes() for file in faces.files)
    return tuple(hashlib.sha256(content).hexdigest() for content in contents)


def picture(smiling: int, number: int, side: int) -> Image.Image:
    """Noise on a grey ground; who smiles (1) is lighter in the lower half. Not square, as CelebA's are not."""
    draw = np.random.default_rng(number)
    ground = draw.uniform(70, 160, 3) + draw.normal(0, 12, (side * 11 // 9, side, 3))
    ground[len(ground) // 2 :] += 60 * smiling
    return Image.fromarray(ground.clip(0, 255).astype(np.uint8))


def write_images(folder: Path, smiling: Sequence[int], side: int = 36) -> tuple[str, ...]:
    """000001.jpg, 000002.jpg, … in `folder`, which is made where it is not there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(f"{number:06d}.jpg" for number in range(1, len(smiling) + 1))
    for number, (file, smiles) in enumerate(zip(files, smiling, strict=True)):
        picture(smiles, number, side).save(folder / file, quality=90)
    return files


def write_faces(root: Path, count: int, images: str = "faces", table: str = "faces.csv") -> Faces:
    """`count` images in `root`/`images` and a CSV with Smiling and Male as -1 and 1 in `root`/`table`."""
    smiling = tuple(1 if number % 2 else -1 for number in range(count))
    male = tuple(1 if number % 5 < 2 else -1 for number in range(count))
    files = write_images(root / images, smiling)
    frame = pd.DataFrame({"filename": files, "Smiling": smiling, "Male": male})
    frame.to_csv(root / table, index=False)
    return Faces(root / images, root / table, files, smiling, male)


def write_zip(folder: Path, archive: Path, inside: str = "") -> Path:
    """A zip of the files in `folder`, in a subfolder `inside` of it."""
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.iterdir()):
            opened.write(path, f"{inside}/{path.name}" if inside else path.name)
    return archive


def write_weights(path: Path) -> Path:
    """The weights that `none` stands for at this width, as a file."""
    backbone = load_backbone("none", WIDTH)
    state = {f"features.{name}": tensor for name, tensor in backbone.features.items()}
    state |= {f"classifier.{name}": tensor for name, tensor in backbone.classifier.items()}
    safetensors.torch.save_file(state, path)
    return path


def pytest_configure(config: pytest.Config) -> None:
    """What `make fast` need not wait for: that a disk has what is written, which it would have only after a power cut.

    What depends on it is tested with a simulated disk, and by counting calls.
    """
    if config.getoption("hypothesis_profile") == "fast":
        os.fsync = lambda fd: None


def pytest_collection_finish() -> None:
    """Libraries and tests stay to the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries tell of what is left at the end


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Another number of threads gives other low bits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    processes.end_all()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """Forty images beside their CSV. Not to be changed by a test."""
    return write_faces(tmp_path_factory.mktemp("faces"), 40)


@dataclass(frozen=True)
class Bench:
    """What a trial needs, at a size that trains in milliseconds."""

    run: RunSettings
    data: TrainingData
    backbone: Backbone
    split: Path

    def record(self, trial_id: str) -> TrialRecord:
        """An empty record in the run folder."""
        record = RunFolder(self.run.folder).trial(trial_id)
        record.folder.mkdir(parents=True)
        return record

    def predict(self, model: TransferVGG16, images: LabelledImages) -> torch.Tensor:
        """Logits of `images` without augmentation or dropout."""
        return predict(model, evaluation_batches(model, self.run, images), self.run)

    def fit(
        self, config: TrialConfig, record: TrialRecord | None = None, **changed: object
    ) -> tuple[list[Row], Outcome]:
        """Every row of a trial and how it ended; `changed` replaces settings of the run."""
        run = self.run.model_copy(update=changed)
        return exhaust(fit(config, run, self.data, self.backbone, record))


def exhaust(trial: Iterator[Row]) -> tuple[list[Row], Outcome]:
    """The rows that a generator yields, and what it returns."""
    rows = []
    while True:
        try:
            rows.append(next(trial))
        except StopIteration as end:
            return rows, end.value


def results(rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """What must repeat exactly, without what is measured."""
    return [tuple(getattr(row, column) for column in RESULT_COLUMNS) for row in rows]


@pytest.fixture(scope="session")
def split_file(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 8 validation and 8 test images of `faces`."""
    table = open_table(DataConfig(images=faces.images, target="Smiling"))
    split = add_digests(make_split(table, SplitConfig(validation=0.2, test=0.2)), faces.images)
    path = tmp_path_factory.mktemp("split") / "split.parquet"
    split.to_parquet(path)
    return path


def make_bench(faces: Faces, split_file: Path, folder: Path) -> Bench:
    """Three epochs on `faces` at 32 px with a narrow random backbone, in the run folder `folder`; no collapse guard."""
    run = RunSettings(
        folder=folder,
        images=faces.images,
        image_size=32,
        weights="none",
        width=WIDTH,
        epochs=3,
        collapse_epochs=None,
    )
    run.folder.mkdir()
    data = open_training_data(split_file, faces.images, run.image_size)
    return Bench(run, data, load_backbone("none", WIDTH), split_file)


@pytest.fixture
def bench(faces: Faces, split_file: Path, tmp_path: Path) -> Bench:
    """A bench of the test's own."""
    return make_bench(faces, split_file, tmp_path / "run")


@pytest.fixture
def refused() -> Callable[[pytest.ExceptionInfo[Exception]], str]:
    """The text of a refusal, which is one line."""

    def text(caught: pytest.ExceptionInfo[Exception]) -> str:
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return text


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run folder of six trials. Not to be written to."""
    import tests.support.analysis_runs as analysis_runs  # which imports this file

    return analysis_runs.template(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of `unchanged`, the test's own."""
    import tests.support.analysis_runs as analysis_runs

    return analysis_runs.copy_of(
        analysis_runs.template(tmp_path_factory.getbasetemp()), tmp_path / "run"
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return write_faces(tmp_path_factory.mktemp("many"), 120)


def sweep_facts(
    faces: Faces, folder: Path, trial: dict[str, Any], **sections: Any
) -> dict[str, Any]:
    """What the YAML of a small, quick sweep named `run` holds."""
    return {
        "name": "run",
        "storage": str(folder),
        "data": {
            "images": str(faces.images),
            "table": str(faces.table),
            "target": "Smiling",
            "image_size": 32,
        },
        "model": {"weights": "none", "width": WIDTH},
        "trial": {"head": "linear"} | trial,
        "search": {"method": "grid"},
    } | sections


@pytest.fixture
def configure(many: Faces, tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep.yaml: one trial at a time, none of them stopped."""

    def write(trial: dict[str, Any], **sections: Any) -> Path:
        plain = {
            "asha": "off",
            "guards": "off",
            "resources": {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0},
        }
        path = tmp_path / "sweep.yaml"
        trial = {"strategy": "full", "batch_size": 16} | trial
        path.write_text(yaml.safe_dump(sweep_facts(many, tmp_path, trial, **plain | sections)))
        return path

    return write


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds what this test shares and remembers."""
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


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
