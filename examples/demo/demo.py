"""A whole sweep on drawn faces: images, sweep, results, one test, report. `make demo` runs it.

Each step is a command that you could type; commands are printed as they run. The previous demo's run is replaced.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FACES = 2000
RUN = Path("runs/demo")


def step(*command: str) -> None:
    """Run one command in the project's folder; stop the demo if it fails."""
    print(f"\n$ {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *module(command)], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def module(command: tuple[str, ...]) -> list[str]:
    """Arguments to run `sweep …` and `analysis …` with this interpreter, wherever their scripts were installed."""
    first, *rest = command
    return ["-m", first, *rest] if first in ("sweep", "analysis") else list(command[1:])


def main() -> None:
    started = time.monotonic()
    step("python", "examples/demo/faces.py", str(FACES), "examples/demo/data")
    shutil.rmtree(ROOT / RUN, ignore_errors=True)
    step("sweep", "run", "examples/demo/sweep.yaml")
    step("analysis", "results", str(RUN))
    step("analysis", "test", str(RUN))
    step("analysis", "report", str(RUN))
    print(
        f"\nThe demo took {time.monotonic() - started:.0f} s. Open its report: {RUN / 'report.html'}"
    )


if __name__ == "__main__":
    main()
