"""How long is a slot idle between two trials?

Measures from Tune's decision that a trial is over to the next `reset_config` on the same actor, and separately how long
it takes to open the next record and to build its model: in the sweep (quarter width), and here at full width with the
reference report's head, beside torchvision's own VGG-16. Prints medians and writes JSON.

    python benchmarks/gaps.py [--trials 40] [--concurrent 1] [--out gaps.json]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

os.environ.setdefault("SWEEP_STORE", tempfile.mkdtemp())

from sweep.on_ray import cluster  # noqa: I001  sets what Ray reads when it is imported
from sweep.on_ray import launcher, scheduler, searcher
from sweep.session.beginning import begin_new
from sweep.request.config import SweepConfig, check_config
from sweep.session.create import partial_run
from sweep.on_ray.own_ray import OwnRay
from sweep.request.prepare import prepare
from trainable import trial as trial_module
from trainable.show.terminal import PlainConsole
from trainable.config import TrialConfig
from trainable.network.model import build_model, load_backbone

from torch import nn
import torchvision

assert cluster


class TimedTrial(trial_module.FaceTrial):
    """Records when it is reset and when its first epoch begins."""

    def _note(self, what: str) -> None:
        path = Path(self._run.folder) / f"times-{os.getpid()}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps({"what": what, "at": time.time(), "pid": os.getpid()}) + "\n")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._note("reset")
        return super().reset_config(new_config)

    def _open(self) -> None:
        self._note("open")
        super()._open()
        self._note("opened")


def faces(folder: Path, count: int) -> Path:
    """`count` small JPEG files of noise and their table."""
    (folder / "faces").mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = [f"{number:04d}.jpg" for number in range(count)]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
            folder / "faces" / file
        )
    table = folder / "faces.csv"
    pd.DataFrame({"filename": files, "Smiling": [1, -1] * (count // 2)}).to_csv(table, index=False)
    return table


def tiny_sweep(name: str, width: float, **sections: object) -> SweepConfig:
    """A sweep on sixty small images in a temporary folder, with the other sections as given."""
    folder = Path(tempfile.mkdtemp())
    data = {"images": str(folder / "faces"), "table": str(faces(folder, 60))}
    facts = {
        "name": name,
        "storage": str(folder),
        "data": data | {"target": "Smiling", "image_size": 32},
        "model": {"weights": "none", "width": width},
    }
    return check_config(facts | sections, {}, "the benchmark")


def measure(trials: int, concurrent: int) -> dict[str, Any]:
    """Run one sweep of short trials; returns every gap in seconds."""
    config = tiny_sweep(
        "gaps",
        width=0.25,
        trial={
            "strategy": "block5",
            "head": "64",
            "epochs": 2,
            "lr": [float(x) for x in np.geomspace(1e-5, 1e-2, trials)],
        },
        search={"method": "grid"},
        asha="off",
        guards="off",
        resources={"concurrent": concurrent, "cpus_per_trial": 1},
    )
    decided: list[float] = []
    end = searcher.RecordSearcher.on_trial_complete

    def noted(self: Any, *arguments: Any, **named: Any) -> None:
        decided.append(time.time())
        end(self, *arguments, **named)

    searcher.RecordSearcher.on_trial_complete = noted  # type: ignore[method-assign]
    launcher.FaceTrial = TimedTrial  # type: ignore[attr-defined]  # in its place
    own = OwnRay(concurrent)
    with partial_run(config, prepare(config), ["benchmark"]) as run:
        try:
            begin = partial(begin_new, run)
            code = launcher.run_session(run, begin, "local", own, PlainConsole())
        finally:
            own.close()
    assert code == 0 and scheduler
    notes = [
        json.loads(line)
        for path in config.folder.glob("times-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    resets = sorted(note["at"] for note in notes if note["what"] == "reset")
    gaps = []
    for reset in resets:
        before = [at for at in decided if at < reset]
        gaps.append(reset - max(before))
    opening = []
    for path in config.folder.glob("times-*.jsonl"):
        events = [json.loads(line) for line in path.read_text().splitlines()]
        opening += [
            b["at"] - a["at"]
            for a, b in pairwise(events)
            if (a["what"], b["what"]) == ("open", "opened")
        ][1:]  # the first also reads the split and the backbone
    built = [
        float(line.split("built in ")[1].split()[0])
        for record in run.folder.trials()
        for line in record.log.read_text().splitlines()
        if "built in " in line
    ]
    return {
        "trials": trials,
        "concurrent": concurrent,
        "decision_to_reset_seconds": {
            "median": statistics.median(gaps),
            "max": max(gaps),
            "n": len(gaps),
        },
        "opening_seconds": {"median": statistics.median(opening), "n": len(opening)},
        "building_seconds": {"median": statistics.median(built), "n": len(built)},
        "building_full_width": full_width(),
        "gaps": gaps,
    }


def full_width(repeats: int = 5) -> dict[str, float]:
    """Median seconds to build block5 with the 25088-4096-1024-1 head, that head alone, and torchvision's VGG-16."""
    backbone = load_backbone("none", 1.0)
    config = TrialConfig(strategy="block5", head="mlp")

    def median(build: Callable[[], object]) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            build()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return {
        "ours": median(lambda: build_model(config, backbone)),
        "its head's initialisation": median(
            lambda: [nn.Linear(25088, 4096), nn.Linear(4096, 1024), nn.Linear(1024, 1)]
        ),
        "torchvision's vgg16()": median(lambda: torchvision.models.vgg16()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--concurrent", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.trials, arguments.concurrent)
    text = json.dumps(found, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "gaps"}, indent=2))


if __name__ == "__main__":
    main()
