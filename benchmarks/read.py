"""How long does it take to read and report ten thousand trials? Frames against plain JSON parsing; reports by size.

python benchmarks/read.py [--trials 12 1000 10000] [--epochs 10] [--images 3000] [--repeats 3] [--out read.json]

Frames are timed for the last number of trials, reports for each. Trials are synthetic, and nothing is trained: two
strategies, two optimizers, rates from a range; every third is pruned after three epochs; all learn, and have
predictions for `--images` images.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweep.request.config import SweepConfig, check_config, dump_config
from sweep.search.asha import Decision, Verdict
from trainable.config import TrialConfig
from trainable.records.files import now, sha256_of
from trainable.records.manifest import (
    Configuration,
    Digests,
    Images,
    Manifest,
    Session,
    SessionEnd,
    write_manifest,
)
from trainable.records.rows import Row, Status, StatusRecord
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

RUNG = 3
SLOTS = 4
PREDICTIONS = 50  # different ones; further trials share them
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


# ---------------------------------------------------------------- a run


def write_run(folder: Path, trials: int, epochs: int, images: int) -> None:
    """Write a run as a sweep would, with random values."""
    config = configuration(folder, trials, epochs)
    run, draw = RunFolder(folder), np.random.default_rng(0)
    (run.path / "trials").mkdir(parents=True)
    run.config.write_text(dump_config(config), encoding="utf-8")
    split = split_of(images)
    split.to_parquet(run.split, index=False)
    write_manifest(run, manifest_of(run, dump_config(config), len(split)))
    predictions = [predictions_of(split, draw) for _ in range(min(trials, PREDICTIONS))]
    orders = [draw.permutation(images) for _ in predictions]
    decisions = []
    for number in range(trials):
        settings = TrialConfig(
            strategy=("head", "block5")[number % 2],
            optimizer=("adam", "sgd")[number // 2 % 2],
            lr=float(10 ** draw.uniform(-5, -2)),
            schedule_epochs=epochs,
        )
        rows = rows_of(draw.uniform(0.6, 1, (epochs, 6)).tolist(), images)
        pruned = number % 3 == 2 and epochs > RUNG
        rows = rows[:RUNG] if pruned else rows
        record = run.trial(settings.trial_id)
        write_trial(record, settings, number, rows, Status.PRUNED if pruned else Status.FINISHED)
        record.right.write_bytes(right_of(rows, orders[number % len(orders)]))
        best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss, -row.epoch))
        (record.folder / f"best-{best.epoch}.parquet").write_bytes(
            predictions[number % len(predictions)]
        )
        score = max(row.val_accuracy for row in rows[:RUNG])
        verdict: Verdict = "stop" if pruned else "go on"
        decisions.append(Decision(number + 1, record.trial_id, RUNG, score, 0.6, verdict))
    lines = [json.dumps(decision.to_json()) + "\n" for decision in decisions]
    run.rungs.write_text("".join(lines) if epochs > RUNG else "")


def configuration(folder: Path, trials: int, epochs: int) -> SweepConfig:
    return check_config(
        {
            "name": folder.name,
            "storage": folder.parent,
            "data": {"images": "faces", "target": "Smiling"},
            "trial": {
                "strategy": ["head", "block5"],
                "optimizer": ["adam", "sgd"],
                "lr": {"loguniform": [1e-5, 1e-2]},
                "epochs": epochs,
            },
            "search": {"method": "random", "trials": trials},
        },
        {},
        "benchmarks/read.py",
    )


def split_of(images: int) -> pd.DataFrame:
    """Equally many images for training, validation and test."""
    count = 3 * images
    return pd.DataFrame(
        {
            "file": [f"{number:06}.jpg" for number in range(count)],
            "label": [number % 2 for number in range(count)],
            "part": np.repeat(["train", "validation", "test"], images),
            "sha256": hashlib.sha256(b"").hexdigest(),
        }
    )


def predictions_of(split: pd.DataFrame, draw: np.random.Generator) -> bytes:
    rows = split.loc[split["part"] == "validation", ["file", "label"]]
    logit = (draw.normal(0, 1, len(rows)) + 3 * (rows["label"] - 0.5)).astype(np.float32)
    content = BytesIO()
    rows.assign(logit=logit).to_parquet(content)
    return content.getvalue()


def manifest_of(run: RunFolder, text: str, images: int) -> Manifest:
    nothing = hashlib.sha256(b"").hexdigest()
    return Manifest(
        project_version="0.1.0",
        git_commit=None,
        git_dirty=None,
        python=sys.version.split()[0],
        packages={},
        host="node-1",
        created=now(),
        seeds={"split": 42, "search": 0},
        target="Smiling",
        classes=("0", "1"),
        configurations=(Configuration.of(text, ["sweep", "run", "read.yaml"]),),
        images=Images(count=images),
        digests=Digests(table=None, images=nothing, split=sha256_of(run.split), weights=nothing),
        image_folder=run.path / "faces",
        sessions=(
            Session(
                number=1, host="node-1", pid=1, started=now(), ended=now(), how=SessionEnd.FINISHED
            ),
        ),
    )


def rows_of(values: Sequence[Sequence[float]], images: int) -> list[Row]:
    row = Row(1, 0.7, 0.5, 0.7, 0.5, 0.5, 0.5, 1e-3, 1.25, 2_000.0, 0, now(), 24_000, 10**15, 9.5)
    names = [name for name in asdict(row) if name.startswith(("train_", "val_"))]
    rows = [
        replace(row, **{"epoch": epoch, **dict[str, Any](zip(names, each, strict=True))})
        for epoch, each in enumerate(values, start=1)
    ]
    return [replace(row, val_accuracy=round(row.val_accuracy * images) / images) for row in rows]


def right_of(rows: Sequence[Row], order: "np.ndarray[Any, np.dtype[np.int64]]") -> bytes:
    """right.bits: as many right as each row says, those first in `order` (images,)."""
    counts = [round(row.val_accuracy * len(order)) for row in rows]
    return np.packbits(order < np.array(counts)[:, None], axis=1).tobytes()


def write_trial(
    record: TrialRecord, settings: TrialConfig, number: int, rows: Sequence[Row], status: Status
) -> None:
    """Write a trial without syncing: a hundred thousand synced files would take hours."""
    record.folder.mkdir()
    facts = {"trial_id": settings.trial_id, "number": number, "origin": "search"}
    asked = json.dumps(facts | {"settings": settings.model_dump()})
    (record.folder / "config.json").write_text(asked)
    started = BEGUN + timedelta(seconds=20 * (number // SLOTS))
    became = StatusRecord(
        status,
        attempt=1,
        host="node-1",
        slot=f"slot {number % SLOTS}",
        started=started.isoformat(),
        ended=(started + timedelta(seconds=15)).isoformat(),
    )
    (record.folder / "status.json").write_text(json.dumps(asdict(became)))
    lines = [json.dumps(row.to_json()) + "\n" for row in rows]
    (record.folder / "epochs.jsonl").write_text("".join(lines))


# ---------------------------------------------------------------- its readers, each in a process of its own


def parse_json(folder: Path) -> int:
    """Count lines: the work that any reader of these files must do."""
    rows = 0
    for path in folder.glob("trials/*"):
        json.loads((path / "config.json").read_text())
        json.loads((path / "status.json").read_text())
        rows += sum(1 for line in (path / "epochs.jsonl").open() if json.loads(line))
    return rows


def make_frames(folder: Path) -> int:
    """Make both frames from a single read."""
    from analysis.frames import results

    run = results.read(folder)
    return len(results.trials(run)) + len(results.epochs(run))


def make_report(folder: Path) -> int:
    """Write the report; returns its size in bytes."""
    from analysis.pages.report import write_report

    return write_report(folder).stat().st_size


READERS: dict[str, Callable[[Path], int]] = {
    "json": parse_json,
    "frames": make_frames,
    "report": make_report,
}


def read(reader: str, folder: Path) -> dict[str, Any]:
    """Wall and processor seconds in this process, with imports for a report; peak memory in bytes."""
    if reader == "frames":
        from analysis.frames import results  # noqa: F401  its imports are not what is measured
    start, used = time.perf_counter(), time.process_time()
    found = READERS[reader](folder)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "reader": reader,
        "found": found,
        "seconds": seconds,
        "processor_seconds": used,
        "peak_bytes": peak,
    }


def measure(reader: str, folder: Path, repeats: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--read", reader, str(folder)]
    return [json.loads(subprocess.check_output(command)) for _ in range(repeats)]


def say(what: str, unit: str, found: Sequence[dict[str, Any]]) -> None:
    seconds = [each["seconds"] for each in found]
    used = statistics.median(each["processor_seconds"] for each in found)
    peak = max(each["peak_bytes"] for each in found) / 2**20
    print(
        f"{what:>22}: {found[0]['found']:>10,} {unit}, {statistics.median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}, n = {len(found)}), {used:.2f} s of a processor, "
        f"{peak:.0f} MiB at most",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 1_000, 10_000])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", nargs=2, metavar=("READER", "RUN"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        print(json.dumps(read(asked.read[0], Path(asked.read[1]))))
        return
    facts: dict[str, Any] = {name: getattr(asked, name) for name in ("trials", "epochs", "images")}
    with tempfile.TemporaryDirectory() as root:
        for trials in asked.trials:
            folder = Path(root) / f"of-{trials}"
            write_run(folder, trials, asked.epochs, asked.images)
            facts[folder.name] = measure("report", folder, asked.repeats)
            say(f"report, {trials:,} trials", "bytes", facts[folder.name])
        for reader in ("json", "frames"):
            facts[reader] = measure(reader, folder, asked.repeats)
            say(reader, "rows", facts[reader])
    if asked.out:
        asked.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
