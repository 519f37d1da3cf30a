"""Whole sweeps under a real Ray: what is killed goes on, what is interrupted resumes, and GPUs are shared fairly."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from analysis.final_test import final_test
from analysis.pages.report import render
from sweep.on_ray import cluster
from sweep.on_ray.node_tasks import MustSee
from sweep.search.ranking import standing, winner
from tests.support.bench import results, write_weights
from tests.support.faces import WIDTH, Faces, write_faces
from tests.support.ray_sweeps import GOOD, assert_as_calm, calm, end, running, sweep, wait_for
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.manifest import SessionEnd, read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]  # whole sweeps, also on a slow machine
FLAT, BROKEN = 1e-9, 1e15


def goes_on(run: RunFolder, rows: int) -> bool:
    """Has the run so many rows, and a trial that is running?"""
    return sum(len(record.rows()) for record in run.trials()) >= rows and bool(running(run, 1))


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[Any]:
    """A cluster of one node with two GPUs that Ray is made to believe in."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 4, "num_gpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def test_one_trial_diverges_one_is_pruned_and_one_is_killed_and_goes_on(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure(
        {"lr": [GOOD, BROKEN, FLAT], "optimizer": "sgd", "epochs": 40},
        search={"method": "grid", "first": [{"lr": GOOD}]},
        asha={"grace_period": 20, "reduction_factor": 2, "rungs_of": "strategy"},
        sharing="off",
    )
    run = RunFolder(tmp_path / "run")
    process = sweep("run", config, tmp=tmp_path)
    victim = wait_for(lambda: running(run, epochs=5), process)
    os.kill(victim.status().pid, signal.SIGKILL)
    code, out, err = end(process)
    assert code == 0, out + err

    by_rate = {record.asked.settings.lr: record for record in run.trials()}
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
    assert read_manifest(run).sessions[-1].how is SessionEnd.FINISHED

    again = sweep("run", config, tmp=tmp_path)
    code, _, err = end(again)
    assert code == 2
    assert "sweep resume" in err and err.count("\n") == 1


def test_a_sweep_that_is_interrupted_and_killed_again_and_again_ends_as_a_calm_one(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    """Ctrl-C; SIGTERM; SIGTERM twice, where the second does not wait for Tune; SIGKILL."""
    config = configure({"lr": [1e-3, GOOD], "augmentation": "flip_jitter", "epochs": 50})
    run = RunFolder(tmp_path / "run")
    command: tuple[object, ...] = ("run", config)
    for session, (numbers, code) in enumerate(
        (
            ((signal.SIGINT,), 130),
            ((signal.SIGTERM,), 143),
            ((signal.SIGTERM, signal.SIGTERM), 143),
            ((signal.SIGKILL,), -9),
        ),
        start=1,
    ):
        process = sweep(*command, tmp=tmp_path, address=two_gpus.address)
        rows = 15 * session
        wait_for(partial(goes_on, run, rows), process)
        began = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.2)
        ended, out, err = end(process)
        assert ended == code, out + err
        assert time.monotonic() - began < 60
        if len(numbers) == 1 and code > 0:
            assert "sweep resume" in out
            assert Status.INTERRUPTED in {record.status().status for record in run.trials()}
        command = ("resume", run.path)
    ended, out, err = end(sweep(*command, tmp=tmp_path, address=two_gpus.address))
    assert ended == 0, out + err
    assert_as_calm(run, trials=2)
    assert [s.number for s in read_manifest(run).sessions] == [1, 2, 3, 4, 5]


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
    asked = run.manifest.read_bytes()
    code, _, err = end(
        sweep(*more, "resources.cpus_per_trial=99", tmp=tmp_path, address=two_gpus.address)
    )
    assert code == 2 and "one node must hold a whole trial" in err
    assert run.manifest.read_bytes() == asked, "what was refused is not on record"
    code, out, err = end(sweep(*more, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    assert "1 continue from their kept state" in out
    assert first.rows()[:6] == before
    assert_as_calm(run, trials=2)
    assert [len(record.rows()) for record in run.trials()] == [12, 12]
    commands = [asked.command[1] for asked in read_manifest(run).configurations]
    assert commands == ["run", "extend"]
    code, out, err = end(sweep("resume", run.path, tmp=tmp_path, address=two_gpus.address))
    assert code == 0 and "nothing is left to do" in out, out + err


def test_an_interrupted_sweep_that_was_moved_goes_on_is_tested_and_reported_where_it_is_now(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    """Run folder, images, table and weights are elsewhere, as on another machine; the rows are those of one place."""
    own, there = tmp_path / "here", tmp_path / "there"
    faces = write_faces(own, 60)
    weights = write_weights(own / "vgg.safetensors")
    data = {"images": str(faces.images), "target": "Smiling", "image_size": 32}
    config = configure(
        {"lr": [1e-3, GOOD], "augmentation": "flip_jitter", "epochs": 30},
        storage=str(own),
        data=data,
        model={"weights": str(weights), "width": WIDTH},
    )
    process = sweep("run", config, tmp=tmp_path, address=two_gpus.address)
    wait_for(lambda: running(RunFolder(own / "run"), epochs=5), process)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130

    own.rename(there)
    run = RunFolder(there / "run")
    code, _, err = end(sweep("resume", run.path, tmp=tmp_path, address=two_gpus.address))
    assert code == 2 and "data.images=PLACE" in err and err.count("\n") == 1
    changes = (
        f"data.images={there / 'faces'}",
        f"model.weights={there / 'vgg.safetensors'}",
        "resources.concurrent=2",
        "search.time_limit=1h",
    )
    process = sweep("resume", run.path, *changes, tmp=tmp_path, address=two_gpus.address)
    code, out, err = end(process)
    assert code == 0, out + err
    assert "2 trials at a time" in out
    assert "their threads stay" not in out, "a trial's CPUs are what they were"
    assert_as_calm(run, trials=2)
    manifest = read_manifest(run)
    assert manifest.table == there / "faces.csv"
    assert [asked.command[1] for asked in manifest.configurations] == ["run", "resume"]
    result = final_test(run.path).opening.result
    assert result is not None and result.images == 6
    assert "can no longer be read" not in render(run.path)


@pytest.mark.slow
def test_a_pruned_trial_is_audited_and_changes_nothing_that_was_decided(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    run = RunFolder(tmp_path / "run")
    config = configure(
        {"lr": [GOOD, FLAT], "optimizer": "sgd", "epochs": 40},
        search={"method": "grid", "first": [{"lr": GOOD}]},
        asha={"grace_period": 20, "reduction_factor": 2},
        sharing="off",
    )
    code, out, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    best, stopped = sorted(run.trials(), key=lambda record: -len(record.rows()))
    assert (stopped.status().status, len(stopped.rows())) == (Status.PRUNED, 20)
    decided = [run.rungs, *best.folder.iterdir(), *stopped.folder.iterdir()]
    before = {path: path.read_bytes() for path in decided}

    audit = ("extend", run.path, "--audit", 3)
    code, out, err = end(sweep(*audit, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    assert "1 of 1 pruned trials" in out and "fewer than 3" in out
    audited = run.trials()[-1]
    assert audited.asked.audits == stopped.trial_id
    assert (audited.status().status, len(audited.rows())) == (Status.FINISHED, 40)
    assert results(audited.rows())[:20] == results(stopped.rows())
    assert {path: path.read_bytes() for path in before} == before
    found = winner(s for r in run.trials() if (s := standing(r, Metric.VAL_ACCURACY)))
    assert found is not None and found.trial_id == best.trial_id
    assert not list(audited.folder.glob("*.safetensors")) and not audited.last.exists()
    commands = [asked.command[1:] for asked in read_manifest(run).configurations]
    assert commands[-1][:4] == ("extend", str(run.path), "--audit", "3")

    code, out, err = end(sweep(*audit, tmp=tmp_path, address=two_gpus.address))
    assert code == 2 and "all 1 were audited" in err and err.count("\n") == 1


@pytest.mark.slow
def test_the_time_limit_counts_from_the_first_trial_and_ends_a_sweep_orderly_and_resumably(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure(
        {"lr": GOOD, "epochs": 100_000},
        search={"method": "grid", "time_limit": "8s"},  # shorter than what comes before it
        sharing="off",
    )
    code, out, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 130, out + err
    assert "time limit" in out and "sweep resume" in out
    run = RunFolder(tmp_path / "run")
    session = read_manifest(run).sessions[-1]
    assert session.how is SessionEnd.TIME_LIMIT and session.ended is not None
    (record,) = run.trials()
    assert record.status().attempt == 1 and record.status().status is Status.INTERRUPTED
    began, ended = map(datetime.fromisoformat, (session.started, session.ended))
    assert (ended - began).total_seconds() >= 8


@pytest.mark.slow
def test_gpus_that_torch_can_t_use_leave_trials_the_cpus(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure({"lr": [GOOD, FLAT], "epochs": 1}, resources={"gpus_per_trial": "auto"})
    code, out, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    assert "2 trials at a time, each 2 CPU, cpu" in out or "each 3 CPU, cpu" in out
    granted = read_manifest(RunFolder(tmp_path / "run")).resources
    assert granted is not None and granted.gpus_per_trial == 0


@pytest.mark.slow
def test_four_trials_at_half_a_gpu_share_two_devices_two_and_two(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure(
        {"lr": [1e-4, 3e-4, 1e-3, GOOD], "epochs": 100_000},
        resources={"gpus_per_trial": "1/2"},
        sharing="off",
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
    two_gpus.add_node(num_cpus=2, num_gpus=2)  # six CPUs in all, four on a node
    config = configure({"lr": GOOD, "epochs": 1}, resources={"cpus_per_trial": 5})
    code, _, err = end(sweep("run", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 2
    assert "one node must hold a whole trial" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("*run*")), "nothing is left of what was refused"
    code, _, planned = end(sweep("plan", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 2 and planned == err


def test_a_plan_of_a_cluster_shows_what_a_trial_gets_there_and_leaves_nothing(
    configure: Callable[..., Path], tmp_path: Path, two_gpus: Any
) -> None:
    config = configure({"lr": [GOOD, FLAT], "epochs": 1}, resources={"gpus_per_trial": "1/2"})
    before = sorted(tmp_path.rglob("*"))
    code, out, err = end(sweep("plan", config, tmp=tmp_path, address=two_gpus.address))
    assert code == 0, out + err
    assert "2 trials at a time, each with 0.5 GPU and" in out and "on its GPU" in out
    last = out.rstrip().splitlines()[-1]
    assert last == f"next: sweep run {config} --address {two_gpus.address}"
    left = [path for path in tmp_path.rglob("*") if "store" not in path.parts]
    assert sorted(left) == [path for path in before if "store" not in path.parts]
    code, _, err = end(
        sweep("plan", config, "resources.gpus_per_trial=3", tmp=tmp_path, address=two_gpus.address)
    )
    assert code == 2 and err.count("\n") == 1 and "gpus_per_trial" in err


def test_a_node_that_does_not_see_the_run_folder_or_the_images_is_refused(
    many: Faces, tmp_path: Path, two_gpus: Any
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    first = many.files[0]
    with cluster.cluster(two_gpus.address, tmp_path / "log"):
        found = cluster.nodes()
        asked = MustSee(tmp_path, many.images, first, session=1)
        seen = cluster.look_at(found, asked, here=False)
        assert len(seen) == len(found) and not list(tmp_path.glob(".seen-*"))
        with pytest.raises(RequestError, match="must see and write the run folders in"):
            cluster.look_at(found, replace(asked, folder=tmp_path / "elsewhere"), here=False)
        with pytest.raises(RequestError, match=f"must see the images, but .* has no .*{first}"):
            cluster.look_at(found, replace(asked, images=tmp_path), here=False)


def test_a_cluster_that_does_not_answer_is_refused_in_one_line(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    config = configure({"lr": GOOD, "epochs": 1})
    code, _, err = end(sweep("run", config, tmp=tmp_path, address="127.0.0.1:1"))
    assert code == 2
    assert "--address" in err.splitlines()[-1]


@pytest.mark.slow
def test_replicate_trains_the_best_settings_again_with_new_seeds(
    configure: Callable[..., Path], tmp_path: Path
) -> None:
    code, out, err = end(
        sweep("run", configure({"lr": [GOOD, 1e-5], "epochs": 2}), tmp=tmp_path), seconds=300
    )
    assert code == 0, out + err
    run = RunFolder(tmp_path / "run")
    best = winner(s for r in run.trials() if (s := standing(r, Metric.VAL_ACCURACY)))
    assert best is not None
    asked = sweep("replicate", run.path, "--top", 1, "--seeds", 2, tmp=tmp_path)
    code, out, err = end(asked, seconds=300)
    assert code == 0, out + err
    again = [record for record in run.trials() if record.asked.origin == "replicate"]
    setting = run.trial(best.trial_id).asked.settings
    assert len(run.trials()) == 4 and len({record.asked.settings.seed for record in again}) == 2
    for record in again:
        assert record.status().status is Status.FINISHED
        assert record.asked.settings.seed != setting.seed
        assert record.asked.settings.lr == setting.lr
