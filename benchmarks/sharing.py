"""How much faster is a sweep that does its frozen work once than a plain Ray Tune script?

Runs this project's `sweep run` and benchmarks/plain_ray_tune.py in turn, each from a cold start in its own process, on
the same images, split, settings, order and number of epochs, without pruning on either side. Every run of ours starts
with an empty store. Besides the ratio, it reports the floor (benchmarks/floor.py), how busy the slots were, the peak
memory, and where the time outside training went. Writes CASE.json with everything measured and CASE.html, a timeline,
and prints two tables; benchmarks/documents.py puts them into the documents.

    python benchmarks/sharing.py mixed12 --images 240 --validation 32 --epochs 3 [--repeats 3]
    python benchmarks/sharing.py head24 --images 240 --validation 32 --epochs 10 --concurrent 2 --threads 1
    python benchmarks/sharing.py mixed4 --images 128 --validation 16 --head 4096-4096 --batch-size 64
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # not installed

from benchmarks import documents, floor
from trainable.data import read_split
from trainable.installation import git_state
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

HERE = Path(__file__).parent
TEST_IMAGES = 4  # never opened, but a split needs some
MEMORY_EVERY = 5.0  # seconds; checking all pages of a process takes a tenth of one
BLOCKS = (14, 12)  # colours of a synthetic image, before scaling up
CASES: dict[str, dict[str, Any]] = {
    "mixed12": {
        "strategy": ["head", "block5"],
        "lr": [1e-4, 1e-3],
        "augmentation": ["none", "flip", "flip_jitter"],
    },
    "mixed4": {
        "strategy": ["head", "block5"],
        "lr": [1e-3, 1e-4],
        "augmentation": "flip",
    },
    "mixed8": {
        "strategy": ["head", "block5"],
        "lr": [1e-4, 1e-3],
        "augmentation": ["none", "flip"],
    },
    "mixed24": {
        "strategy": ["head", "block5"],
        "lr": [float(f"{lr:.3g}") for lr in np.geomspace(1e-5, 1e-2, 12)],
        "augmentation": "flip",
    },
    "head24": {
        "strategy": "head",
        "lr": [float(f"{lr:.3g}") for lr in np.geomspace(1e-5, 1e-2, 24)],
        "augmentation": "flip",
    },
}
KEYS = ("strategy", "lr", "augmentation", "head", "batch_size", "optimizer")


@dataclass
class TimedTrial:
    """When and where a trial ran, and its results; times are seconds since the epoch."""

    setting: dict[str, Any]
    slot: str
    started: float
    ended: float
    epoch_seconds: list[float]
    val_accuracy: list[float]
    val_loss: list[float]
    building_seconds: float = 0.0
    waited_seconds: float = 0.0
    """Time in its epochs spent waiting for features that another trial was computing."""
    frozen_multiply_adds: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.setting[name] for name in KEYS)


@dataclass
class Side:
    """One run of one side."""

    side: str
    """ours | peer"""
    started: float
    wall_seconds: float
    trials: list[TimedTrial]
    fixed_seconds: dict[str, float]
    peak_rss_bytes: int
    """Of all trial processes together, including forked loaders; shared pages count in each."""
    peak_pss_bytes: int
    """The same, but a page that n processes share counts as 1/n in each."""
    store_bytes: int = 0
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def first(self) -> float:
        return min(trial.started for trial in self.trials)

    @property
    def last(self) -> float:
        return max(trial.ended for trial in self.trials)

    @property
    def slots(self) -> int:
        return len({trial.slot for trial in self.trials})

    @property
    def busy(self) -> float:
        """Share of the slots' time, from the first trial's start to the last one's end, that was spent in epochs."""
        epochs = sum(sum(trial.epoch_seconds) - trial.waited_seconds for trial in self.trials)
        return epochs / (self.slots * (self.last - self.first))

    def to_json(self) -> dict[str, Any]:
        facts = {name: value for name, value in asdict(self).items() if name != "files"}
        return facts | {
            "training_seconds": self.last - self.first,
            "slots": self.slots,
            "busy": self.busy,
        }


# ---------------------------------------------------------------- images


def faces(folder: Path, images: int, validation: int) -> Path:
    """A table of JPEG files of CelebA's size: smooth colours with noise, brighter at the bottom for one class."""
    (folder / "faces").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    parts = [0] * images + [1] * validation + [2] * TEST_IMAGES
    for number, part in enumerate(parts):
        file, label = f"{number + 1:06d}.jpg", 1 if number % 2 else -1
        colours = rng.integers(0, 256, (*BLOCKS, 3), dtype=np.uint8)
        smooth = Image.fromarray(colours).resize((178, 218), Image.Resampling.BICUBIC)
        pixels = np.asarray(smooth, dtype=np.float32) + rng.normal(0, 8, (218, 178, 3))
        pixels[120:170, 50:130] += 40 * label
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            folder / "faces" / file, quality=90
        )
        rows.append({"image_id": file, "Smiling": label, "partition": part})
    frame = pd.DataFrame(rows)
    table = folder / "list_attr_celeba.csv"
    frame[["image_id", "Smiling"]].to_csv(table, index=False)
    frame[["image_id", "partition"]].to_csv(folder / "list_eval_partition.csv", index=False)
    return table


# ---------------------------------------------------------------- running


class Memory(threading.Thread):
    """Watches the trial processes below `process` and records their peak memory."""

    def __init__(self, process: psutil.Process, titles: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.peak_rss = self.peak_pss = 0
        self._process = process
        self._titles = titles
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(MEMORY_EVERY):
            rss = pss = 0
            try:
                children = self._process.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            for child in children:
                try:
                    title = " ".join(child.cmdline()[:1])
                    if title.startswith("ray::") and any(name in title for name in self._titles):
                        memory = child.memory_full_info()
                        rss += memory.rss
                        pss += memory.pss
                except psutil.Error:
                    continue
            self.peak_rss = max(self.peak_rss, rss)
            self.peak_pss = max(self.peak_pss, pss)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def run(
    command: Sequence[str], titles: Sequence[str], log: Path, **env: str
) -> tuple[float, float, Memory]:
    """Run a program to its end; returns its start, its seconds, and the memory of its trials.

    Raises:
        SystemExit: it failed; the end of its output is printed.
    """
    with log.open("w") as output:
        started = time.time()
        process = subprocess.Popen(
            command, env=os.environ | env, stdout=output, stderr=subprocess.STDOUT
        )
        memory = Memory(psutil.Process(process.pid), titles)
        memory.start()
        code = process.wait()
        seconds = time.time() - started
        memory.stop()
    if code:
        print(log.read_text()[-4000:], file=sys.stderr)
        raise SystemExit(f"{command[1]} ended with exit code {code}")
    return started, seconds, memory


def run_ours(arguments: argparse.Namespace, folder: Path, table: Path, repeat: int) -> Side:
    """Run this project's sweep, with its own empty store."""
    store = folder / f"store-{repeat}"
    store.mkdir()
    config = {
        "name": f"ours-{repeat}",
        "storage": str(folder),
        "data": {
            "images": str(folder / "faces"),
            "table": str(table),
            "target": "Smiling",
            "image_size": arguments.image_size,
            "split": "official",
        },
        "model": {"weights": arguments.weights, "width": arguments.width},
        "trial": {
            **CASES[arguments.case],
            "head": arguments.head,
            "batch_size": arguments.batch_size,
            "optimizer": arguments.optimizer,
            "epochs": arguments.epochs,
        },
        "search": {"method": "grid"},
        "asha": "off",
        "guards": "off",
        "resources": {
            "concurrent": arguments.concurrent,
            "cpus_per_trial": arguments.threads,
            "gpus_per_trial": arguments.gpus_per_trial,
        },
    }
    file = folder / f"ours-{repeat}.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "sweep", "run", str(file), *arguments.set]
    started, seconds, memory = run(
        command, ("FaceTrial", "slot-"), folder / f"ours-{repeat}.log", SWEEP_STORE=str(store)
    )
    found = RunFolder(folder / f"ours-{repeat}")
    records = found.trials()
    assert all(record.status().status is Status.FINISHED for record in records)
    trials = [timed(record) for record in records]
    prepared, ray_up = found.split.stat().st_mtime, found.session.stat().st_mtime
    side = Side(
        "ours",
        started,
        seconds,
        trials,
        {},
        memory.peak_rss,
        memory.peak_pss,
        sum(path.stat().st_size for path in store.rglob("*") if path.is_file()),
        tuple(read_split(found.split, ("train", "validation"))["file"]),
    )
    epochs = sum(sum(trial.epoch_seconds) for trial in trials)
    building = sum(trial.building_seconds for trial in trials)
    inside = sum(trial.ended - trial.started for trial in trials)
    side.fixed_seconds = {
        "imports, table, looking at images": prepared - started,
        "Ray's start": ray_up - prepared,
        "actors and their imports": side.first - ray_up,
        "building models": building / side.slots,
        "opening and writing trials": (inside - epochs - building) / side.slots,
        "between trials, slots left idle": side.last - side.first - inside / side.slots,
        "end": started + seconds - side.last,
    }
    shutil.copy(found.split, folder / "split.parquet")
    shutil.rmtree(found.path)
    shutil.rmtree(store)
    return side


def timed(record: TrialRecord) -> TimedTrial:
    """Read from the trial's log, to the millisecond, when it was opened and when its slot was free for the next trial,
    behind which its weights are written."""
    lines = record.log.read_text().splitlines()
    opened = logged_at(lines[0])
    freed = next(line for line in reversed(lines) if f"trial {record.trial_id}: " in line)
    built = [float(line.split("built in ")[1].split()[0]) for line in lines if "built in " in line]
    rows, status = record.rows(), record.status()
    settings = record.asked.settings
    return TimedTrial(
        {name: getattr(settings, name) for name in KEYS},
        f"{status.slot} {status.pid}",
        opened,
        logged_at(freed),
        [row.seconds for row in rows],
        [row.val_accuracy for row in rows],
        [row.val_loss for row in rows],
        sum(built),
        sum(row.waited_seconds for row in rows),
        sum(row.frozen_multiply_adds for row in rows),
    )


def logged_at(line: str) -> float:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def run_peer(
    arguments: argparse.Namespace, folder: Path, settings: Sequence[Mapping[str, Any]], repeat: int
) -> Side:
    """Run the plain script, on our split and in our order."""
    (folder / "settings.json").write_text(json.dumps(settings))
    out = folder / f"peer-{repeat}.json"
    options = {
        "images": folder / "faces",
        "split": folder / "split.parquet",
        "settings": folder / "settings.json",
        "epochs": arguments.epochs,
        "image-size": arguments.image_size,
        "width": arguments.width,
        "weights": arguments.weights,
        "concurrent": arguments.concurrent,
        "cpus-per-trial": arguments.threads,
        "gpus-per-trial": arguments.gpus_per_trial,
        "loader-workers": arguments.loader_workers,
        "out": out,
    }
    command = [sys.executable, str(HERE / "plain_ray_tune.py"), *arguments.peer]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    started, seconds, memory = run(
        command, ("train", "ImplicitFunc"), folder / f"peer-{repeat}.log"
    )
    found = json.loads(out.read_text())
    trials = [
        TimedTrial(
            trial["setting"],
            f"pid {trial['pid']}",
            trial["started"],
            trial["ended"],
            [row["seconds"] for row in trial["epochs"]],
            [row["val_accuracy"] for row in trial["epochs"]],
            [row["val_loss"] for row in trial["epochs"]],
        )
        for trial in found["trials"]
    ]
    side = Side("peer", started, seconds, trials, {}, memory.peak_rss, memory.peak_pss)
    epochs = sum(sum(trial.epoch_seconds) for trial in trials)
    inside = sum(trial.ended - trial.started for trial in trials)
    side.fixed_seconds = {
        "Ray's start": found["ray_init_seconds"],
        "imports, actors and their imports": side.first - started - found["ray_init_seconds"],
        "building models and loaders": (inside - epochs) / side.slots,
        "between trials, slots left idle": side.last - side.first - inside / side.slots,
        "end": started + seconds - side.last,
    }
    return side


# ---------------------------------------------------------------- comparing


def compare(ours: Side, peer: Side) -> dict[str, float]:
    """Ratios of one repeat, in which both sides trained the same settings for the same number of epochs."""
    theirs = {trial.key: trial for trial in peer.trials}
    assert set(theirs) == {trial.key for trial in ours.trials}, "other settings"
    differences = []
    for trial in ours.trials:
        other = theirs[trial.key]
        assert len(trial.epoch_seconds) == len(other.epoch_seconds), "other epochs"
        differences.append(abs(max(trial.val_accuracy) - max(other.val_accuracy)))
    return {
        "ratio": peer.wall_seconds / ours.wall_seconds,
        "training_ratio": (peer.last - peer.first) / (ours.last - ours.first),
        "best_val_accuracy_mean_difference": statistics.mean(differences),
        "best_val_accuracy_largest_difference": max(differences),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All repeats of one case; the sides take turns in going first."""
    table = faces(folder, arguments.images, arguments.validation)
    ours: list[Side] = []
    peers: list[Side] = []
    settings: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for side in ("ours", "peer") if repeat % 2 == 0 else ("peer", "ours"):
            if side == "peer" and repeat >= arguments.peer_repeats:
                continue
            if side == "ours":
                ours.append(run_ours(arguments, folder, table, repeat))
                order = [trial.setting for trial in ours[-1].trials]
                assert settings in ([], order), "the order of trials changed"
                assert ours[-1].files == ours[0].files, "the split changed"
                settings = order
            else:
                peers.append(run_peer(arguments, folder, settings, repeat))
            last = (ours if side == "ours" else peers)[-1]
            print(f"{side}: {last.wall_seconds:.1f} s, slots busy {last.busy:.0%}", flush=True)
    sizes = floor.Sizes(
        arguments.images, arguments.validation, arguments.image_size, arguments.width
    )
    trials = [floor.Trial.of(setting, arguments.epochs) for setting in settings]
    parts = read_split(folder / "split.parquet", ("train",))
    threads = arguments.threads * arguments.concurrent
    files = tuple(parts["file"])
    bound = floor.floor(trials, sizes, threads, files)
    unique = floor.total_multiply_adds(floor.frozen_once(trials, sizes, files))
    pairs = [compare(*pair) for pair in zip(ours, cycle(peers), strict=False)]
    commit, changed = git_state()
    names = ours[0].fixed_seconds
    return {
        "arguments": {name: value for name, value in vars(arguments).items() if name != "out"}
        | {"weights": Path(arguments.weights).name},
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": processor(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "packages": {name: metadata.version(name) for name in ("torch", "torchvision", "ray")},
        "git_commit": commit,
        "git_dirty": changed,
        "settings": settings,
        "ours_seconds": spread([side.wall_seconds for side in ours]),
        **(against(peers, pairs) if peers else {}),
        "over_floor": spread([(side.last - side.first) / bound["floor_seconds"] for side in ours]),
        "wall_over_floor": spread([side.wall_seconds / bound["floor_seconds"] for side in ours]),
        "frozen_work_over_unique": spread(
            [sum(trial.frozen_multiply_adds for trial in side.trials) / unique for side in ours]
        ),
        "busy": spread([side.busy for side in ours]),
        "fixed_seconds": {
            name: statistics.median(side.fixed_seconds[name] for side in ours) for name in names
        },
        "peak_rss_bytes": max(side.peak_rss_bytes for side in ours),
        "peak_pss_bytes": max(side.peak_pss_bytes for side in ours),
        "pairs": pairs,
        "floor": bound,
        "runs": [side.to_json() for side in (*ours, *peers)],
    }


def against(peers: Sequence[Side], pairs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The figures that need runs of the plain script."""
    return {
        "peer_runs": len(peers),
        "peer_seconds": spread([side.wall_seconds for side in peers]),
        "peer_peak_rss_bytes": max(side.peak_rss_bytes for side in peers),
        "peer_peak_pss_bytes": max(side.peak_pss_bytes for side in peers),
        "ratio": spread([pair["ratio"] for pair in pairs]),
        "training_ratio": spread([pair["training_ratio"] for pair in pairs]),
    }


def processor() -> str:
    """The processor's name, and whether it has the instructions that make bfloat16 worthwhile."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor()
    lines = path.read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in flags]
    return f"{name} ({', '.join(known)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--validation", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--head", default="mlp")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="CPUs of a trial")
    parser.add_argument("--gpus-per-trial", type=float, default=0)
    parser.add_argument("--loader-workers", type=int, default=0, help="of the plain script")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-repeats", type=int, help="fewer runs of the plain script, or none")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for ours")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="--OPTION", help="as --peer=--no-…"
    )
    parser.add_argument("--name", help="name of the files, by default the case's")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder")
    arguments = parser.parse_args()
    if arguments.peer_repeats is None:
        arguments.peer_repeats = arguments.repeats
    name = arguments.name or arguments.case
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    documents.timeline(found).write_html(arguments.out / f"{name}.html", include_plotlyjs="cdn")
    floor.show(found["floor"])
    print(documents.case_table([found]))
    print(documents.fixed_table([found]))


if __name__ == "__main__":
    main()
