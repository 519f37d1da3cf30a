"""Whole sweeps by their commands: the start, the time between trials, a killed driver, the plain script."""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import psutil
import yaml

from benchmarks import sharing
from benchmarks.gpu_stages.computed import turnover_seconds, warming_seconds
from benchmarks.gpu_stages.job import Job, Note
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

EPOCHS: Final = 3
KILL_IMAGES: Final = 300
KILL_EPOCHS: Final = 100
PATIENCE: Final = 20.0  # seconds until a process that lost its driver counts as an orphan
POLL_SECONDS: Final = 0.05
TUNED_IMAGES: Final = 3000
PEER_SETTINGS: Final = (("head", "flip"), ("block5", "flip_jitter"))


def _arguments(job: Job, **changed: Any) -> argparse.Namespace:
    facts = {
        "case": "mixed4",
        "image_size": job.image_size,
        "weights": "none",
        "width": job.width,
        "head": job.head,
        "batch_size": 32,
        "optimizer": "adam",
        "epochs": EPOCHS,
        "concurrent": 1,
        "threads": job.cpus,
        "gpus_per_trial": 1 if job.device == "cuda" else 0,
        "loader_workers": 0,
        "set": [],
        "peer": [],
    }
    return argparse.Namespace(**facts | changed)


def sweep(job: Job, note: Note) -> None:
    """`sweep run` of four trials, three epochs each, from an empty store; all figures from its records.

    The first three are noted while it runs, so that they remain even if it takes too long.
    """
    name = time.monotonic_ns()
    run, ended = RunFolder(job.faces / f"ours-{name}"), threading.Event()
    watch = threading.Thread(target=_watch, args=(run, note, ended), daemon=True)
    watch.start()
    side = sharing.run_ours(_arguments(job), job.faces, job.table, name)
    ended.set()
    watch.join()
    facts = side.to_json()
    first = min(side.trials, key=lambda trial: trial.started)
    start = first.started - side.started
    note(
        wall_seconds=side.wall_seconds,
        start_seconds=start,
        first_epoch_seconds=first.epoch_seconds[0],
        start_to_first_row_seconds=start + first.building_seconds + first.epoch_seconds[0],
        turnover_seconds=turnover_seconds(facts["trials"]),
        warming_seconds=warming_seconds(facts["trials"]),
        busy=side.busy,
        fixed_seconds=side.fixed_seconds,
        end_seconds=side.fixed_seconds["end"],
        store_bytes=side.store_bytes,
        peak_rss_bytes=side.peak_rss_bytes,
        trials=facts["trials"],
    )


def _watch(run: RunFolder, note: Note, ended: threading.Event) -> None:
    """Note the seconds from now until the run folder, a trial and a row exist."""
    began = time.monotonic()
    moments: dict[str, Callable[[], bool]] = {
        "seconds_to_the_run_folder": run.manifest.exists,
        "seconds_to_the_first_trial": lambda: any(run.path.glob("trials/*/log.txt")),
        "seconds_to_the_first_row": lambda: _rows(run) > 0,
    }
    for name, there in moments.items():
        while not there():
            if ended.wait(POLL_SECONDS):
                return
        note(**{name: time.monotonic() - began})


# ---------------------------------------------------------------- a driver that is killed


def kill(job: Job, note: Note) -> None:
    """Kill a driver while its first trial trains: which processes stay behind, and does `sweep resume` continue?"""
    folder = job.folder / "kill"
    folder.mkdir()
    environment = os.environ | {"SWEEP_STORE": str(folder / "store")}
    run = RunFolder(folder / "killed")

    def command(*words: object) -> subprocess.Popen[bytes]:
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sweep", *map(str, words)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    began = time.monotonic()
    driver = command("run", _small_sweep(job, folder))
    _wait(lambda: _rows(run) >= 5, driver, folder / "log.txt")
    note(seconds_to_the_kill=time.monotonic() - began, rows_at_the_kill=_rows(run))
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    began = time.monotonic()
    while (left := [p for p in family if _lives(p)]) and time.monotonic() - began < PATIENCE:
        time.sleep(POLL_SECONDS)
    note(
        processes=len(family),
        seconds_until_all_were_gone=None if left else time.monotonic() - began,
        orphans=[" ".join(_words(p))[:200] for p in left],
    )
    for each in left:
        each.kill()
    began = time.monotonic()
    code = command("resume", run.path).wait()
    statuses = [record.status().status for record in run.trials()]
    note(
        resume_code=code,
        resume_seconds=time.monotonic() - began,
        all_finished=all(status is Status.FINISHED for status in statuses) and len(statuses) == 2,
        rows=_rows(run),
    )


def _small_sweep(job: Job, folder: Path) -> Path:
    table = folder / "few.csv"
    pd.read_csv(job.table).iloc[:KILL_IMAGES].to_csv(table, index=False)
    facts = {
        "name": "killed",
        "storage": str(folder),
        "data": {
            "images": str(job.faces / "faces"),
            "table": str(table),
            "target": "Smiling",
            "image_size": min(job.image_size, 64),
        },
        "model": {"weights": "none", "width": min(job.width, 0.25)},
        "trial": {
            "strategy": "head",
            "head": "64",
            "lr": [1e-4, 1e-3],
            "augmentation": "flip",
            "epochs": KILL_EPOCHS,
        },
        "search": {"method": "grid"},
        "asha": "off",
        "guards": "off",
        "resources": {
            "concurrent": 1,
            "cpus_per_trial": job.cpus,
            "gpus_per_trial": 1 if job.device == "cuda" else 0,
        },
    }
    path = folder / "kill.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def _rows(run: RunFolder) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.path.glob("trials/*/epochs.jsonl"))


def _wait(condition: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for `condition`; raise RuntimeError with the end of its output if the driver ends before."""
    while not condition():
        if driver.poll() is not None:
            raise RuntimeError(log.read_text()[-1500:])
        time.sleep(POLL_SECONDS)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return [str(process.pid)]


# ---------------------------------------------------------------- the plain script


def plain(job: Job, note: Note) -> None:
    """The plain script: first its loader processes are tuned, then two trials run at once, two epochs each."""
    rows = _split(job)
    half = max(job.cpus // 2, 1)
    some = sorted({max(job.cpus // 4, 1), max(half - 1, 1), half})
    rates = {workers: _loader_rate(job, rows, workers) for workers in some}
    workers = max(rates, key=lambda each: rates[each])
    note(loader_images_per_second=rates, loader_workers=workers)
    arguments = _arguments(
        job,
        epochs=2,
        concurrent=2,
        threads=half,
        gpus_per_trial=0.5 if job.device == "cuda" else 0,
        loader_workers=workers,
    )
    common = {"lr": 1e-4, "head": job.head, "batch_size": 32, "optimizer": "adam"}
    settings: Sequence[Mapping[str, Any]] = [
        {"strategy": strategy, "augmentation": augmentation, **common}
        for strategy, augmentation in PEER_SETTINGS
    ]
    side = sharing.run_peer(arguments, job.faces, settings, time.monotonic_ns())
    facts = side.to_json()
    note(
        wall_seconds=side.wall_seconds,
        start_seconds=side.first - side.started,
        concurrent=2,
        epoch_seconds={
            f"{trial['setting']['strategy']} {trial['setting']['augmentation']}": trial[
                "epoch_seconds"
            ]
            for trial in facts["trials"]
        },
        fixed_seconds=side.fixed_seconds,
    )


def _split(job: Job) -> pd.DataFrame:
    """The official parts, as the plain script reads them."""
    labels, parts = (
        pd.read_csv(job.faces / name) for name in (job.table.name, "list_eval_partition.csv")
    )
    names = {0: "train", 1: "validation", 2: "test"}
    split = pd.DataFrame(
        {
            "file": labels["image_id"],
            "label": (labels["Smiling"] > 0).astype(int),
            "part": parts["partition"].map(names),
        }
    )
    split.to_parquet(job.faces / "split.parquet")
    return split


def _loader_rate(job: Job, rows: pd.DataFrame, workers: int) -> float:
    """Images per second, jittered, from loader processes alone, after their start."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    from benchmarks import plain_ray_tune

    size = (job.image_size, job.image_size)
    see = [
        v2.Resize(size, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.2, 0.2, 0.2),
    ]
    part = rows[rows["part"] == "train"].iloc[:TUNED_IMAGES]
    images = plain_ray_tune.Faces(job.faces / "faces", part, v2.Compose(see))
    loader = DataLoader(images, batch_size=32, num_workers=workers, prefetch_factor=4)
    batches = iter(loader)
    next(batches)
    began, count = time.perf_counter(), 0
    for pixels, _ in batches:
        count += len(pixels)
    return count / (time.perf_counter() - began)
