"""How long a step takes, where it goes, and how long whole epochs of real images take."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_stages.bench import Bench, random_features
from benchmarks.gpu_stages.equality import full, setting
from benchmarks.gpu_stages.job import Job, Note, last_line
from trainable.captured_steps import Noise
from trainable.config import RunSettings, TrialConfig
from trainable.frozen.reference import Work
from trainable.hardware.device import device_of
from trainable.network.model import build_model
from trainable.records.rows import Row
from trainable.step import TrainingSteps

BATCHES: Final = (32, 64)
STEPS: Final = {"cuda": 100, "cpu": 4}  # of a timed epoch
TIMED: Final = 3  # epochs
SMALL_HEAD: Final = "512-64"
SHOWN: Final = 15  # kernels
KINDS: Final = (  # of kernels, by name; the first match counts
    ("adam", r"adam|multi_tensor"),
    ("convolution", r"conv|wgrad|dgrad|cudnn|implicit"),
    ("gemm", r"gemm|gemv|cutlass|xmma|nvjet|splitk|addmm|aten::mm\b|aten::linear"),
    ("casts and copies", r"copy|cast|_to_|memcpy"),
    ("gather and scatter", r"index|gather|scatter"),
    ("dropout and random", r"dropout|philox|random|bernoulli"),
    ("fills", r"fill|zero|memset"),
)


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    lower = kernel.lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, lower)), "rest")


def bare(bench: Bench, config: TrialConfig, graphs: bool, steps: int) -> "Bare":
    """Steps on features in the device's memory, warmed up and, if so configured, captured."""
    run = bench.but(graphs=graphs).run
    device_of(run.device).fix_kernels(run.tf32)
    torch.manual_seed(0)
    model = build_model(config, bench.backbone).to(device_of(run.device).torch)
    frozen, labels = random_features(config, run, config.batch_size * steps)
    found = Bare(TrainingSteps(config, run, model, labels), frozen, run, steps)
    found.epoch()
    return found


@dataclass
class Bare:
    """The steps of a trial, without validation."""

    steps: TrainingSteps
    frozen: Noise
    run: RunSettings
    count: int
    number: int = 0

    def epoch(self) -> float:
        """Seconds per step, over one epoch."""
        device = device_of(self.run.device)
        device.synchronize()
        began = time.perf_counter()
        self.number += 1
        self.steps.epoch(self.frozen, self.number, Work())
        device.synchronize()
        return (time.perf_counter() - began) / self.count


def profiled(work: Callable[[], object], device: str, steps: int) -> dict[str, Any]:
    """Milliseconds per step by kernel (the longest) and by kind of kernel; on a CPU by operation."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities = [ProfilerActivity.CUDA]
    with profile(activities=activities) as found:
        work()
        device_of(device).synchronize()
    column = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    each = {
        event.key: (getattr(event, column) / 1e3 / steps, event.count / steps)
        for event in found.key_averages()
        if getattr(event, column) > 0
    }
    kinds: dict[str, float] = defaultdict(float)
    for name, (milliseconds, _) in each.items():
        kinds[kind_of(name)] += milliseconds
    longest = sorted(each.items(), key=lambda item: -item[1][0])[:SHOWN]
    return {
        "ms_by_kind": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "kernels": [
            {"name": name[:160], "kind": kind_of(name), "ms": ms, "calls": calls}
            for name, (ms, calls) in longest
        ],
    }


def steps(job: Job, note: Note) -> None:
    """Bare steps, eager and as a graph, of S's head and of a small one; for graphs at batch 32 also a profile."""
    bench = full(job, 32, 8, precision=job.half if job.device == "cuda" else "float32")
    for (strategy, head, batch), graphs in product(_stepped(job.head), (True, False)):
        config = setting(strategy, head, batch_size=batch)
        name = f"{strategy} {head} B{batch}"
        try:
            here = bare(bench, config, graphs, STEPS[job.device])
            milliseconds = [1e3 * here.epoch() for _ in range(TIMED)]
            note(**{f"step ms {name} {'graph' if graphs else 'eager'}": milliseconds})
            if graphs and batch == BATCHES[0]:
                found = profiled(here.epoch, job.device, here.count)
                note(**{f"profile {name} graph": found})
            here.steps.close()
            del here
        except Exception as error:
            note(**{f"failed {name} {'graph' if graphs else 'eager'}": last_line(error)})
        device_of(job.device).give_back()


def _stepped(head: str) -> list[tuple[str, str, int]]:
    """Strategy, head and batch size, the most wanted first."""
    small = [(strategy, SMALL_HEAD, BATCHES[0]) for strategy in ("head", "block5")]
    large = [(strategy, head, batch) for batch in BATCHES for strategy in ("head", "block5")]
    return [*large[:2], *small, *large[2:]]


# ---------------------------------------------------------------- whole epochs


def epochs(job: Job, note: Note) -> None:
    """Epochs over all images, with the store that `fill` has filled; jittered ones also as in a second trial."""
    bench = full(
        job,
        job.training,
        job.validation,
        epochs=3,
        precision=job.half if job.device == "cuda" else "float32",
    ).sharing("resident", job.store)
    by = bench.but(graphs=True).shared()

    def train(name: str, graphs: bool, **changed: Any) -> None:
        config = setting(**changed)
        if config.augmentation == "flip_jitter":
            here = bench.but(graphs=graphs, epochs=2)
        else:
            here = bench.but(graphs=graphs)
        try:
            note(**{name: summary(here.rows(config, by=by))})
        except Exception as error:
            note(**{name: last_line(error)})
        device_of(job.device).give_back()

    for strategy in ("head", "block5"):
        train(f"{strategy} flip", True, strategy=strategy, head=job.head)
    train(f"head flip {SMALL_HEAD}", True, strategy="head", head=SMALL_HEAD)
    for strategy in ("head", "block5"):
        train(f"{strategy} flip eager", False, strategy=strategy, head=job.head)
    for strategy in ("head", "block5"):
        train(f"{strategy} none", True, strategy=strategy, head=job.head, augmentation="none")
    for strategy, turn in product(("head", "block5"), ("first", "again")):
        name = f"{strategy} flip_jitter {turn}"
        lr = 1e-3 if turn == "first" else 1e-4
        train(name, True, strategy=strategy, head=job.head, augmentation="flip_jitter", lr=lr)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The cost of each epoch."""
    return {
        "epoch_seconds": [row.seconds for row in rows],
        "images_per_second": [row.images_per_second for row in rows],
        "frozen_images": [row.frozen_images for row in rows],
        "frozen_seconds": [row.frozen_seconds for row in rows],
        "peak_bytes": max(row.gpu_memory_bytes for row in rows),
    }
