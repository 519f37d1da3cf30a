"""What does a trial cost the driver, and does the cost stay the same as trials accumulate?

Runs a real sweep under a real Ray with trials that write two rows and end at once: everything but training. Prints the
seconds per trial for the first, a middle and the last tenth of the trials, and writes JSON.

    python benchmarks/driver.py [--trials 10000] [--method random] [--asha] [--out driver.json]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("SWEEP_STORE", tempfile.mkdtemp())
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # not installed

from sweep.on_ray import cluster  # noqa: I001  sets what Ray reads when it is imported
from sweep.on_ray import launcher
from sweep.session.beginning import begin_new
from sweep.session.create import partial_run
from sweep.on_ray.own_ray import OwnRay
from sweep.request.config import Method
from sweep.request.prepare import prepare
from trainable import trial as trial_module
from trainable.show.terminal import PlainConsole
from trainable.records.files import now
from trainable.records.trial_folder import TrialRecord
from trainable.records.rows import Outcome, Row, Status
from benchmarks.gaps import tiny_sweep

assert cluster
EPOCHS = 2
METHODS = [method for method in get_args(Method) if method != "grid"]


def instant(record: TrialRecord) -> Generator[Row, None, Outcome]:
    """Two rows with values drawn from the trial's id, and no training."""
    for epoch in range(1, EPOCHS + 1):
        value = int(record.trial_id[4 * epoch : 4 * epoch + 4], 16) / 2**16
        row = Row(epoch, 0.7, 0.5, 1 - value, value, value, value, 1e-3, 0.01, 1.0, 0, now())
        record.append(row)
        yield row
    return Outcome(Status.FINISHED)


class InstantTrial(trial_module.FaceTrial):
    """Opens and ends its record like every trial, but trains nothing."""

    def _training(self, record: TrialRecord) -> Generator[Row, None, Outcome]:
        return instant(record)


def measure(trials: int, method: str, asha: bool) -> dict[str, Any]:
    """Seconds from each trial's end to the next, by tenths of the sweep."""
    config = tiny_sweep(
        "driver",
        width=0.05,
        trial={
            "strategy": "head",
            "head": "linear",
            "lr": {"loguniform": [1e-6, 1e-1]},
            "epochs": EPOCHS,
        },
        search={"method": method, "trials": trials},
        asha={"grace_period": 1, "reduction_factor": 2} if asha else "off",
        resources={"concurrent": 2, "cpus_per_trial": 1, "gpus_per_trial": 0},
    )
    launcher.FaceTrial = InstantTrial  # type: ignore[attr-defined]  # in its place
    own = OwnRay(trials_at_a_time=2)
    with partial_run(config, prepare(config), ["benchmark"]) as run:
        began = time.time()
        try:
            console = PlainConsole(quiet=True)
            code = launcher.run_session(run, partial(begin_new, run), "local", own, console)
        finally:
            own.close()
        total = time.time() - began
    assert code == 0
    ends = sorted(path.stat().st_mtime for path in config.folder.glob("trials/*/status.json"))
    assert len(ends) == trials
    gaps = [after - before for before, after in pairwise(ends)]
    tenth = max(len(gaps) // 10, 1)
    parts = {"first": gaps[:tenth], "middle": gaps[len(gaps) // 2 :][:tenth], "last": gaps[-tenth:]}
    return {
        "trials": trials,
        "method": method,
        "asha": asha,
        "total_seconds": total,
        "seconds_a_trial": {
            name: {"mean": statistics.mean(part), "median": statistics.median(part)}
            for name, part in parts.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--method", default="random", choices=METHODS)
    parser.add_argument("--asha", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.trials, arguments.method, arguments.asha)
    text = json.dumps(found, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
