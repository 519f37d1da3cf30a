"""Whole sweeps under a real Ray: what is killed goes on, what is interrupted resumes, and GPUs are shared fairly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sweep import cluster
from sweep.ranking import best_row, standing, winner
from tests.conftest import Faces, exhaust, results, write_faces
from trainable.config import RequestError, RunSettings
from trainable.data import open_training_data
from trainable.fit import fit
from trainable.metric import Metric
from trainable.model import load_backbone
from trainable.record import RunFolder, TrialRecord
from trainable.rows import Status

pytestmark = pytest.mark.ray
GOOD, FLAT, BROKEN = 3e-3, 1e-9, 1e15


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    return write_faces(tmp_path_factory.mktemp("many"), 120)


@pytest.fixture
def configure(many: Faces, tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep.yaml for a small, quick sweep."""

    def write(trial: dict[str, Any], **sections: Any) -> Path:
        facts = {
            "name": "run",
            "storage": str(tmp_path),
            "data": {
                "images": str(many.images),
                "table": str(many.table),
                "target": "Smiling",
                "image_size": 32,
            },
            "model": {"weights": "none", "width": 0.05},
            "trial": {"strategy": "full", "head": "linear", "batch_size": 16} | trial,
            "search": {"method": "grid"},
            "asha": "off",
            "guards": "off",
            "resources": {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0},
        } | sections
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(facts))
        return path

    return write


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[Any]:
    """A cluster of one node with two GPUs that Ray is made to believe in."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2})
    yield cluster
    cluster.shutdown()


def sweep(*arguments: object, tmp: Path, address: str = "local") -> subprocess.Popen[str]:
    """The command, started in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sweep", *map(str, arguments), "--address", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SWEEP_STORE": str(tmp / "store")},
    )


def end(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end:\n{out}\n{err}") from None
    return process.returncode, out, err


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 90
) -> Any:
    """What `condition` gives once it is true, while the command runs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        if process.poll() is not None:
            raise AssertionError(f"the command ended early: {process.communicate()}")
        time.sleep(0.02)
    raise AssertionError("what was waited for did not come")


def running(run: RunFolder, epochs: int) -> TrialRecord | None:
    """A trial that runs and has at least so many epochs on record."""
    for record in run.trials():
        if record.status().status is Status.RUNNING and len(record.rows()) >= epochs:
            return record
    return None


def calm(
    run: RunFolder, record: TrialRecord
) -> tuple[list[tuple[float, ...]], dict[str, torch.Tensor]]:
    """Result rows and best weights of the same trial, trained here in one go without Ray or records."""
    settings = RunSettings(**run.read_manifest()["settings"])
    data = open_training_data(run.split, settings.images, settings.image_size)
    backbone = load_backbone(settings.weights, settings.width)
    own = TrialRecord(run.path.parent / "calm" / "trials" / record.trial_id)
    own.folder.mkdir(parents=True)
    rows, _ = exhaust(fit(record.origin.settings, settings, data, backbone, own))
    best = best_row(rows, Metric.VAL_ACCURACY)
    assert best is not None
    return results(rows), own.load_best(best).weights


def test_one_trial_diverges_one_is_pruned_and_one_is_killed_and_goes_on(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure(
        {"lr": [GOOD, BROKEN, FLAT], "optimizer": "sgd", "epochs": 40},
        search={"method": "grid", "first": [{"lr": GOOD}]},
        asha={"grace_period": 20, "reduction_factor": 2},
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path)
    victim = wait_for(lambda: running(run, epochs=5), process)
    os.kill(victim.status().pid, signal.SIGKILL)
    code, out, err = end(process)
    assert code == 0, out + err

    by_rate = {record.origin.settings.lr: record for record in run.trials()}
    assert by_rate[GOOD].trial_id == victim.trial_id
    assert {lr: r.status().status for lr, r in by_rate.items()} == {
        GOOD: Status.FINISHED,
        BROKEN: Status.DIVERGED,
        FLAT: Status.PRUNED,
    }
    assert (victim.status().attempt, victim.status().failures) == (2, 1)
    assert len(by_rate[FLAT].rows()) == 20
    decisions = [json.loads(line) for line in run.rungs.read_text().splitlines()]
    assert [(d["trial_id"], d["verdict"]) for d in decisions] == [
        (victim.trial_id, "go on"),
        (by_rate[FLAT].trial_id, "stop"),
    ]

    rows, weights = calm(run, victim)
    assert results(victim.rows()) == rows
    best = standing(victim, Metric.VAL_ACCURACY)
    assert best is not None
    kept = victim.load_best(best.best).weights
    assert kept.keys() == weights.keys() and all(torch.equal(kept[n], weights[n]) for n in kept)
    found = winner(s for r in run.trials() if (s := standing(r, Metric.VAL_ACCURACY)))
    assert found is not None and found.trial_id == victim.trial_id
    assert run.read_manifest()["sessions"][-1]["how"] == "finished"

    again = sweep("run", config, tmp=tmp_path)
    code, _, err = end(again)
    assert code == 2
    assert "sweep resume" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_sweep_resumes_to_what_a_calm_one_gives(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any, number: int, code: int
) -> None:
    config = configure({"lr": [1e-3, GOOD], "augmentation": "flip_jitter", "epochs": 25})
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path, address=two_gpus.address)
    wait_for(lambda: running(run, epochs=8), process)
    process.send_signal(number)
    began = time.monotonic()
    ended, out, err = end(process)
    assert ended == code, out + err
    assert time.monotonic() - began < 20
    if number != signal.SIGKILL:
        assert "sweep resume" in out
        assert Status.INTERRUPTED in {record.status().status for record in run.trials()}

    ended, out, err = end(sweep("resume", run.path, tmp=tmp_path, address=two_gpus.address))
    assert ended == 0, out + err
    assert len(run.trials()) == 2
    for record in run.trials():
        assert record.status().status is Status.FINISHED
        rows, _ = calm(run, record)
        assert results(record.rows()) == rows
    assert [s["number"] for s in run.read_manifest()["sessions"]] == [1, 2]


def test_a_finished_sweep_is_extended_by_epochs_and_settings(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    """The one trial goes on from its state; what it gives, and the new one too, equals trainings in one go."""
    run = RunFolder(tmp_path / "run")
    config = configure({"lr": GOOD, "augmentation": "flip_jitter", "epochs": 6})
    code, out, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    (first,) = run.trials()
    before = first.rows()
    (tmp_path / "wider.yaml").write_text(yaml.safe_dump({"trial": {"lr": [GOOD, 1e-3]}}))
    more = ("extend", run.path, "--epochs", 12, "--space", tmp_path / "wider.yaml")
    code, out, err = end(sweep(*more, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    assert "1 go on from their kept state" in out
    assert first.rows()[:6] == before
    assert len(run.trials()) == 2
    for record in run.trials():
        assert record.status().status is Status.FINISHED
        rows, _ = calm(run, record)
        assert len(rows) == 12
        assert results(record.rows()) == rows
    commands = [entry["command"][1] for entry in run.read_manifest()["configurations"]]
    assert commands == ["run", "extend"]
    code, out, err = end(sweep("resume", run.path, tmp=tmp_path, address=two_gpus.address))
    assert code == 0 and "nothing is left to do" in out, out + err


def test_the_time_limit_ends_a_sweep_orderly_and_resumably(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure(
        {"lr": GOOD, "epochs": 100_000}, search={"method": "grid", "time_limit": "20s"}
    )
    code, out, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 130, out + err
    assert "time limit" in out and "sweep resume" in out
    run = RunFolder(tmp_path / "run")
    assert run.read_manifest()["sessions"][-1]["how"] == "time limit"
    assert [record.status().status for record in run.trials()] == [Status.INTERRUPTED]


def test_four_trials_at_half_a_gpu_share_two_devices_two_and_two(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure(
        {"lr": [1e-4, 3e-4, 1e-3, GOOD], "epochs": 100_000}, resources={"gpus_per_trial": "1/2"}
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path, address=two_gpus.address)

    def all_four() -> list[TrialRecord]:
        begun = [r for r in run.trials() if r.status().status is Status.RUNNING and r.rows()]
        return begun if len(begun) == 4 else []

    side_by_side = wait_for(all_four, process)
    devices = [record.status().device for record in side_by_side]
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 130, out + err
    assert "4 trials at a time, each 0.5 GPU" in out
    assert sorted(devices) == ["gpu 0", "gpu 0", "gpu 1", "gpu 1"]
    for record, device in zip(side_by_side, devices, strict=True):
        assert f"CUDA_VISIBLE_DEVICES={device[-1]})" in record.log.read_text()


def test_a_trial_that_no_single_node_can_hold_is_refused_before_the_first(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    two_gpus.add_node(num_cpus=2, num_gpus=2)  # four GPUs in all, two on a node
    config = configure({"lr": GOOD, "epochs": 1}, resources={"gpus_per_trial": 4})
    code, _, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 2
    assert "one node must hold a whole trial" in err and err.count("\n") == 1
    assert RunFolder(tmp_path / "run").trials() == []


def test_a_node_that_does_not_see_the_run_folder_or_the_images_is_refused(
    many: Faces, tmp_path: Path, two_gpus: Any
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    first = many.files[0]
    with cluster.cluster(two_gpus.address, tmp_path / "log"):
        found = cluster.nodes()
        seen = cluster.inspect(found, tmp_path, many.images, first, session=1)
        assert len(seen) == len(found) and not list(tmp_path.glob(".seen-*"))
        with pytest.raises(RequestError, match="must see and write the run folder"):
            cluster.inspect(found, tmp_path / "elsewhere", many.images, first, session=1)
        with pytest.raises(RequestError, match=f"must see the images, but .* has no .*{first}"):
            cluster.inspect(found, tmp_path, tmp_path, first, session=1)


def test_a_cluster_that_does_not_answer_is_refused_in_one_line(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure({"lr": GOOD, "epochs": 1})
    code, _, err = end(sweep("run", config, tmp=tmp_path, address="127.0.0.1:1"))
    assert code == 2
    assert "--address" in err.splitlines()[-1]
