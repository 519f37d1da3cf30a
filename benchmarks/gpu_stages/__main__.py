"""python -m benchmarks.gpu_stages MODULE:FUNCTION JOB.json OUT.json: one stage, in this process."""

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.gpu_stages.job import Job, note_to


def main() -> None:
    place, job, out = sys.argv[1:4]
    module, function = place.split(":")
    stage = getattr(import_module(f"benchmarks.gpu_stages.{module}"), function)
    stage(Job.read(Path(job)), note_to(Path(out)))


if __name__ == "__main__":
    main()
