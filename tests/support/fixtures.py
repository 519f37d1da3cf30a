"""What tests of all packages begin with: images, a bench to train on, whole runs and a sweep.yaml."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import typer.testing
import yaml

from sweep.frozen import rates
from tests.support import analysis_runs, processes
from tests.support.bench import Bench, make_bench
from tests.support.faces import Faces, sweep_facts, write_faces
from trainable.config import DataConfig, SplitConfig
from trainable.data import TrainingData, add_digests, make_split, open_table


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Another number of threads gives other low bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def small_probe() -> Iterator[None]:
    """To measure how fast a disk is, a test need not write 32 MB for each processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "PROBED_BYTES", 2**20)
        yield


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    processes.end_all()


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """Forty images beside their CSV. Not to be changed by a test."""
    return write_faces(tmp_path_factory.mktemp("faces"), 40)


@pytest.fixture(scope="session")
def split_file(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 8 validation and 8 test images of `faces`."""
    table = open_table(DataConfig(images=faces.images, target="Smiling"))
    split = add_digests(make_split(table, SplitConfig(validation=0.2, test=0.2)), faces.images)
    path = tmp_path_factory.mktemp("split") / "split.parquet"
    split.to_parquet(path)
    return path


@pytest.fixture(scope="session")
def first_bench(faces: Faces, split_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(faces, split_file, tmp_path_factory.mktemp("bench") / "run")


@pytest.fixture
def bench(first_bench: Bench, tmp_path: Path) -> Bench:
    """A bench of the test's own; table and backbone, which nothing changes, are read once."""
    run = first_bench.run.model_copy(update={"folder": tmp_path / "run"})
    run.folder.mkdir()
    training, validation = replace(first_bench.data.training), replace(first_bench.data.validation)
    return replace(first_bench, run=run, data=TrainingData(training, validation))


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """Typer makes a command and its options anew for each call, as a process does once: 6 ms."""
    made = cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", made)  # of a call of the app
        patch.setattr("typer.testing._get_command", made)  # of a CliRunner
        yield


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
    return analysis_runs.template(tmp_path_factory.getbasetemp())


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of `unchanged`, the test's own."""
    return analysis_runs.copy_of(
        analysis_runs.template(tmp_path_factory.getbasetemp()), tmp_path / "run"
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return write_faces(tmp_path_factory.mktemp("many"), 120)


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
