"""How long do ten thousand trials take to read? The frames of a run, against parsing its JSON alone.

python benchmarks/read.py [--trials 10000] [--epochs 10] [--repeats 3] [--out read.json]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweep.config import SweepConfig, check_config, dump_config
from trainable.config import TrialConfig
from trainable.files import now
from trainable.record import FORMAT_VERSION, RunFolder
from trainable.rows import Row, Status, StatusRecord

READERS = ("json", "trials", "epochs")


def write_run(folder: Path, trials: int, epochs: int) -> None:
    """A run as a sweep leaves it, with values drawn at random and nothing trained."""
    config = configuration(folder, trials, epochs)
    run, draw = RunFolder(folder), np.random.default_rng(0)
    (run.path / "trials").mkdir(parents=True)
    run.config.write_text(dump_config(config), encoding="utf-8")
    run.manifest.write_text(
        json.dumps({"format_version": FORMAT_VERSION, "configurations": [], "sessions": []})
    )
    ended = now()
    row = Row(1, 0.7, 0.5, 0.7, 0.5, 0.5, 0.5, 1e-3, 1.25, 2_000.0, 0, ended, 24_000, 10**15, 9.5)
    for number in range(trials):
        settings = TrialConfig(strategy="head", lr=float(10 ** draw.uniform(-5, -2)), seed=number)
        record = run.trial(settings.trial_id)
        record.folder.mkdir()
        facts = {"trial_id": settings.trial_id, "number": number, "origin": "search"}
        (record.folder / "config.json").write_text(
            json.dumps(facts | {"settings": settings.model_dump()})
        )
        status = StatusRecord(Status.FINISHED, attempt=1, host="node-1", started=ended, ended=ended)
        (record.folder / "status.json").write_text(json.dumps(asdict(status)))
        values = draw.uniform(0.2, 1, (epochs, 6)).tolist()
        rows = [replace_results(row, epoch, each) for epoch, each in enumerate(values, start=1)]
        lines = [json.dumps(each.to_json()) + "\n" for each in rows]
        (record.folder / "epochs.jsonl").write_text("".join(lines))


def configuration(folder: Path, trials: int, epochs: int) -> SweepConfig:
    return check_config(
        {
            "name": folder.name,
            "storage": folder.parent,
            "data": {"images": "faces", "target": "Smiling"},
            "trial": {"strategy": "head", "lr": {"loguniform": [1e-5, 1e-2]}, "epochs": epochs},
            "search": {"method": "random", "trials": trials},
        },
        {},
        "benchmarks/read.py",
    )


def replace_results(row: Row, epoch: int, values: list[float]) -> Row:
    names = [name for name in asdict(row) if name.startswith(("train_", "val_"))]
    return replace(row, epoch=epoch, **dict(zip(names, values, strict=True)))


def read(reader: str, folder: Path) -> dict[str, Any]:
    """Seconds for one of READERS in this process, imports apart, and the process's peak memory in bytes."""
    if reader == "json":
        start = time.perf_counter()
        rows = 0
        for path in folder.glob("trials/*"):
            json.loads((path / "config.json").read_text())
            json.loads((path / "status.json").read_text())
            lines = (path / "epochs.jsonl").read_text().splitlines()
            rows += sum(1 for line in lines if json.loads(line))
    else:
        from analysis import results

        start = time.perf_counter()
        rows = len(getattr(results, reader)(folder))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"reader": reader, "rows": rows, "seconds": seconds, "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", nargs=2, metavar=("READER", "RUN"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        print(json.dumps(read(asked.read[0], Path(asked.read[1]))))
        return
    found = []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "many"
        write_run(folder, asked.trials, asked.epochs)
        for _ in range(asked.repeats):
            for reader in READERS:
                command = [sys.executable, __file__, "--read", reader, str(folder)]
                found.append(json.loads(subprocess.check_output(command)))
    for reader in READERS:
        mine = [each for each in found if each["reader"] == reader]
        seconds = [each["seconds"] for each in mine]
        peak = max(each["peak_bytes"] for each in mine) / 2**30
        print(
            f"{reader:>6}: {mine[0]['rows']:>7,} rows, {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f}, n = {len(mine)}), {peak:.2f} GiB at most"
        )
    if asked.out:
        facts = {"trials": asked.trials, "epochs": asked.epochs, "each": found}
        asked.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
