"""Ctrl-C at random moments of a sweep: how long until it is acknowledged, or the sweep has ended?

Each sweep of a few small trials gets one SIGINT, between 0.2 s and `--latest` seconds after its start: while Python
imports, while Ray starts, while trials train. It must end with exit code 130 and leave no hidden folder.

    python benchmarks/interrupts.py [--moments 20] [--seed 0] [--latest 45]
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # not installed

from benchmarks.gaps import faces

TOLD = ("stopping cleanly", ": ended", "interrupted (", "ended before it began")


def configuration(folder: Path, table: Path) -> Path:
    """The configuration of a sweep that outlasts every moment."""
    facts = {
        "name": "run",
        "storage": str(folder),
        "data": {
            "images": str(table.parent / "faces"),
            "table": str(table),
            "target": "Smiling",
            "image_size": 32,
        },
        "model": {"weights": "none", "width": 0.05},
        "trial": {"strategy": "full", "head": "linear", "lr": [1e-3, 2e-3, 3e-3], "epochs": 2000},
        "search": {"method": "grid"},
        "asha": "off",
        "guards": "off",
        "resources": {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def interrupted(folder: Path, table: Path, moment: float) -> tuple[float, float]:
    """Seconds from the signal until it was acknowledged or the process had ended, and until it had ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sweep", "run", str(configuration(folder, table))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"SWEEP_STORE": str(folder / "store")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    told: list[float] = []
    output = process.stdout
    assert output is not None

    def read() -> None:
        told.extend(time.monotonic() for line in output if any(word in line for word in TOLD))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(moment)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code = process.wait()
    ended = time.monotonic()
    reader.join()
    assert code == 130, f"exit code {code}"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not left, f"{left} was left"
    return min([*told, ended]) - began, ended - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latest", type=float, default=45.0)
    asked = parser.parse_args()
    draw, waits = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as root:
        table = faces(Path(root) / "data", 120)
        for number in range(asked.moments):
            folder = Path(root) / str(number)
            folder.mkdir()
            moment = draw.uniform(0.2, asked.latest)
            wait, end = interrupted(folder, table, moment)
            waits.append(wait)
            print(f"at {moment:4.1f} s: acknowledged after {wait:.2f} s, ended after {end:.1f} s")
    print(f"n = {len(waits)}: median {statistics.median(waits):.2f} s, longest {max(waits):.2f} s")


if __name__ == "__main__":
    main()
