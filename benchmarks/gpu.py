"""Tests and measures everything on one GPU in ten minutes: are results right there, and how fast is it?

Draws its own images, then runs stages (benchmarks/gpu_stages), the most valuable first, each in its own process with a
timeout; whatever happens to one, the next one runs. OUT.json is rewritten after each: status (ok, failed, timed out,
skipped), seconds, figures, and the end of a failing stage's output. Totals of whole sweeps are computed from the
figures and labelled so. With `--device cpu` and small sizes the same code can be tested without a GPU.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --out gpu.json --only environment,steps
    python benchmarks/gpu.py --out cpu.json --device cpu --images 64 --validation 16 --test 16 --image-size 32 \\
        --width 0.05 --head 64 --patience 5 --minutes 40
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs without being installed

from benchmarks.gpu_stages.computed import computed  # noqa: E402
from benchmarks.gpu_stages.job import Job, with_project, write_json  # noqa: E402
from benchmarks.gpu_stages.plan import DRAWING, STAGES, Stage, allowed, chosen  # noqa: E402
from trainable.hardware.cpus import usable_cpus  # noqa: E402

TAIL: Final = 3000  # characters of a failing stage's output
NO_GPU: Final = "import sys, torch; sys.exit(not torch.cuda.is_available())"


def run_stage(stage: Stage, job: Job, seconds: float) -> dict[str, Any]:
    """Run a stage to its end or its timeout, and end everything that it started."""
    told, out = job.folder / "job.json", job.folder / f"{stage.name}.json"
    job.write(told)
    log = job.folder / f"{stage.name}.log"
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_stages", stage.place, str(told), str(out)],
            env=with_project(),
            cwd=job.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = "failed" if process.wait(seconds) else "ok"
        except subprocess.TimeoutExpired:
            status = "timed out"
        finally:
            _end_group(process)
    found: dict[str, Any] = {
        "status": status,
        "seconds": round(time.monotonic() - began, 2),
        "allowed_seconds": round(seconds, 1),
        "figures": json.loads(out.read_text()) if out.is_file() else {},
    }
    if status != "ok":
        found["error"] = log.read_text(errors="replace").strip()[-TAIL:]
    return found


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to the stage and to whatever it left behind in its process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def run_all(
    job: Job, stages: Sequence[Stage], whole: float, patience: float, out: Path
) -> dict[str, Any]:
    """Draw images, then run the stages in order until time is up."""
    until = time.monotonic() + whole
    found: dict[str, Any] = {
        "asked": {"device": job.device, "training": job.training, "validation": job.validation}
        | {"test": job.test, "image_size": job.image_size, "width": job.width, "head": job.head},
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "stages": {},
    }
    for number, stage in enumerate([DRAWING, *stages]):
        left = until - time.monotonic()
        seconds = allowed(stage, stages[number:], left, patience)
        print(f"{stage.name}: {left:.0f} s left, may take {seconds:.0f} s", flush=True)
        if seconds:
            facts = run_stage(stage, job, seconds)
        else:
            facts = {
                "status": "skipped",
                "seconds": 0.0,
                "figures": {},
                "error": "no time was left",
            }
        found["stages"][stage.name] = facts
        found["computed"] = computed(found["stages"])
        write_json(out, found)
        error = facts.get("error", "").splitlines()[-1:]
        print(
            f"{stage.name}: {facts['status']}, {facts['seconds']:.1f} s {' '.join(error)}",
            flush=True,
        )
        if stage is DRAWING:
            if facts["status"] != "ok":
                raise SystemExit(f"no images could be drawn: see {out}")
            drawn = facts["figures"]
            parts = {name: drawn[name] for name in ("training", "validation", "test")}
            job = replace(job, **parts)
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int, default=24_000, help="to train on")
    parser.add_argument("--validation", type=int, default=3_000)
    parser.add_argument("--test", type=int, default=3_000)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--head", default="mlp", help="of the larger trials")
    parser.add_argument("--only", help=f"of {', '.join(stage.name for stage in STAGES)}")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--patience", type=float, default=1.0, help="times each stage's time")
    parser.add_argument(
        "--folder", type=Path, help="for images and stores (default: a temporary one)"
    )
    arguments = parser.parse_args(words)
    try:
        stages = chosen(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if arguments.device == "cuda" and subprocess.run([sys.executable, "-c", NO_GPU]).returncode:
        print(
            "--device cuda needs a GPU that torch sees, but there is none; --device cpu only tests the script"
        )
        return 2
    out = arguments.out.absolute()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="gpu-"))
    job = Job(
        device=arguments.device,
        folder=folder,
        training=arguments.images,
        validation=arguments.validation,
        test=arguments.test,
        image_size=arguments.image_size,
        width=arguments.width,
        head=arguments.head,
        cpus=usable_cpus(),
    )
    try:
        found = run_all(job, stages, 60 * arguments.minutes, arguments.patience, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bad = [name for name, facts in found["stages"].items() if facts["status"] != "ok"]
    print(f"written to {out}; {f'not ok: {chr(44).join(bad)}' if bad else 'every stage is ok'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
