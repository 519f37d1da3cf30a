"""Trials side by side on one device, each in its own process with its share of the memory."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.gpu_stages.bench import results
from benchmarks.gpu_stages.equality import full, setting
from benchmarks.gpu_stages.job import Job, Note, with_project, write_json
from trainable.fit import fit
from trainable.hardware.device import device_of

POLL_SECONDS: Final = 0.005
EPOCHS: Final = 3


def packing(job: Job, note: Note) -> None:
    """One trial alone, then two at once on half a GPU each: images per second with a filled store."""
    for strategy in ("block5", "head"):
        for count in (1, 2):
            note(**{f"{strategy} {count}": beside(job, strategy, count)})


def beside(job: Job, strategy: str, count: int) -> dict[str, Any]:
    """Run `count` trials at once; images per second over their epochs after the first, and the results of each.

    Raises:
        RuntimeError: one of them failed; its text is the end of its output.
    """
    folder = job.folder / f"beside-{strategy}-{count}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    replace(job, cpus=max(job.cpus // count, 1)).write(folder / "job.json")
    processes = []
    for number in range(count):
        command = [sys.executable, "-m", "benchmarks.gpu_stages.packing", str(folder), strategy]
        with (folder / f"{number}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, str(number), str(count)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=with_project(),
                )
            )
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            for process in processes:
                process.kill()  # waiting for the one that failed
        time.sleep(POLL_SECONDS)
    for number, process in enumerate(processes):
        if process.returncode > 0:
            raise RuntimeError((folder / f"{number}.log").read_text().strip()[-1500:])
    found = [json.loads((folder / f"{number}.json").read_text()) for number in range(count)]
    return {
        "images_per_second": sum(job.training / median(each["epoch_seconds"]) for each in found),
        "epoch_seconds": [each["epoch_seconds"] for each in found],
        "peak_bytes": [each["peak_bytes"] for each in found],
        "results": [each["results"] for each in found],
    }


def main() -> None:
    """One of the trials: all continue once each has finished its first epoch."""
    folder, strategy, number, count = sys.argv[1:5]
    here = Path(folder)
    job = Job.read(here / "job.json")
    device_of(job.device).limit_memory(1 / int(count))
    precision = job.half if job.device == "cuda" else "float32"
    bench = full(job, job.training, job.validation, epochs=EPOCHS, precision=precision)
    bench = bench.but(graphs=True, gpu_share=1 / int(count)).sharing("resident", job.store)
    trial = fit(
        setting(strategy, job.head), bench.run, bench.data, bench.backbone, None, bench.shared()
    )
    rows = [next(trial)]
    (here / f"{number}.ready").touch()
    while len(list(here.glob("*.ready"))) < int(count):
        time.sleep(POLL_SECONDS)
    rows += list(trial)
    write_json(
        here / f"{number}.json",
        {
            "epoch_seconds": [row.seconds for row in rows[1:]],
            "peak_bytes": max(row.gpu_memory_bytes for row in rows),
            "results": results(rows),
        },
    )


if __name__ == "__main__":
    main()
