"""Does a sweep that is killed again and again end like an undisturbed one?

First runs a calm sweep: a grid, ASHA on, one trial at a time. Then the same sweep, over and over, each with some
SIGKILLs of its driver, of the process that trains, or of its Ray node, at random moments, one in three while a file is
being written. After a dead driver, `sweep resume` follows. At the end every trial's rows, its best weights, ASHA's
decisions and the winner must equal the calm sweep's to the last bit; a difference ends the program with code 1. With
several trials at a time, ASHA judges them in the order in which they arrive, so a trial may be stopped in one sweep and
not in the other: then all rows that both have must be equal, and the weights of trials that finished in both.

    python benchmarks/faults.py [--kills 50] [--seed 0] [--at-a-time 1] [--out faults.json]
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # not installed

from benchmarks.gaps import faces
from sweep.search.ranking import standing, winner
from trainable.metric import Metric
from trainable.records.files import read_json_lines
from trainable.records.manifest import read_manifest
from trainable.records.rows import RESULT_COLUMNS, Status
from trainable.records.run_folder import RunFolder

KINDS = ("driver", "worker", "node")
SHARES = (2, 2, 1)
KILLS_A_SWEEP = 5
LATEST_KILL = 4.0  # seconds after the first epoch of a session
PATIENCE = 300.0  # seconds that a session may take


@dataclass
class Nodes:
    """A Ray cluster whose head runs no trial, and one node that does."""

    at_a_time: int
    cluster: Cluster = field(
        default_factory=lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    )
    node: Any = None

    def __post_init__(self) -> None:
        self.node = self.cluster.add_node(num_cpus=self.at_a_time)

    def kill(self) -> None:
        """Kill the node abruptly; another takes its place."""
        self.cluster.remove_node(self.node, allow_graceful=False)
        self.node = self.cluster.add_node(num_cpus=self.at_a_time)


def configuration(name: str, folder: Path, table: Path, at_a_time: int) -> Path:
    """The sweep of this name."""
    facts = {
        "name": name,
        "storage": str(folder),
        "data": {
            "images": str(folder / "faces"),
            "table": str(table),
            "target": "Smiling",
            "image_size": 32,
        },
        "model": {"weights": "none", "width": 0.05},
        "trial": {
            "strategy": ["head", "full"],
            "lr": [3e-4, 1e-3, 3e-3],
            "augmentation": "flip_jitter",
            "head": "64",
            "batch_size": 16,
            "epochs": 60,
        },
        "search": {"method": "grid"},
        "metric": "val_loss",
        "asha": {"grace_period": 5, "reduction_factor": 3},
        "guards": "off",
        "resources": {
            "concurrent": at_a_time,
            "cpus_per_trial": 1,
            "gpus_per_trial": 0,
            "retries": 1000,
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def start(arguments: Sequence[object], address: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "sweep", *map(str, arguments), "--address", address],
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def rows_on_record(run: RunFolder) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.path.glob("trials/*/epochs.jsonl"))


def wait(
    condition: Callable[[], bool], driver: subprocess.Popen[bytes], seconds: float, step: float
) -> bool:
    """Did `condition` become true before the driver ended or `seconds` had passed?"""
    until = time.monotonic() + seconds
    while time.monotonic() < until and driver.poll() is None:
        if condition():
            return True
        time.sleep(step)
    return False


def strike(
    kind: str, draw: random.Random, driver: subprocess.Popen[bytes], run: RunFolder, nodes: Nodes
) -> str | None:
    """Kill something after a while; returns what was hit, None if the sweep had already ended."""
    before = rows_on_record(run)
    if not wait(lambda: rows_on_record(run) > before, driver, PATIENCE, 0.05):
        return None
    if (
        not wait(lambda: False, driver, draw.uniform(0, LATEST_KILL), 0.05)
        and driver.poll() is not None
    ):
        return None
    writing = draw.random() < 1 / 3 and wait(
        lambda: any(run.path.glob("trials/*/.*.tmp")) or any(run.path.glob(".*.tmp")),
        driver,
        5,
        0.0005,
    )
    if driver.poll() is not None or all(r.status().status.has_ended for r in run.trials()):
        return None
    if kind == "driver":
        driver.kill()
    elif kind == "worker":
        trials = [p for p in psutil.process_iter(["cmdline"]) if is_trial(p)]
        if not trials:
            return None
        trials[0].kill()
    else:
        nodes.kill()
    return f"{kind}{' in a write' if writing else ''}"


def is_trial(process: psutil.Process) -> bool:
    title = " ".join(process.info["cmdline"] or [])
    return title.startswith("ray::") and ("slot-" in title or "FaceTrial" in title)


def outcome(run: RunFolder) -> dict[str, Any]:
    """What must be equal."""
    found: dict[str, Any] = {}
    for record in run.trials():
        status = record.status().status
        # a pruned trial's weights are those of its last kept state, and the clock decides when that is written
        kept = sorted(record.folder.glob("best-*.safetensors"))
        weights = [hashlib.sha256(path.read_bytes()).hexdigest() for path in kept]
        found[record.trial_id] = {
            "status": status.value,
            "rows": [[getattr(row, name) for name in RESULT_COLUMNS] for row in record.rows()],
            "weights": weights if status is Status.FINISHED else None,
        }
    standings = [s for r in run.trials() if (s := standing(r, Metric.VAL_LOSS))]
    best = winner(standings)
    keys = ("trial_id", "rung", "score", "cutoff", "verdict")
    return {
        "trials": found,
        "decisions": [[line[key] for key in keys] for line in read_json_lines(run.rungs)],
        "winner": best and best.trial_id,
    }


def differences(calm: dict[str, Any], other: dict[str, Any], ordered: bool) -> list[str]:
    """Where two outcomes differ; if trials did not come in the same order, only in what both of them have."""
    found = [key for key in ("decisions", "winner") if ordered and calm[key] != other[key]]
    for trial_id in sorted({*calm["trials"], *other["trials"]}):
        one, two = calm["trials"].get(trial_id), other["trials"].get(trial_id)
        if one is None or two is None:
            found.append(f"trial {trial_id} is {'lost' if two is None else 'new'}")
        elif ordered or one["status"] == two["status"] == Status.FINISHED:
            found += [f"{key} of {trial_id}" for key in one if one[key] != two[key]]
        elif any(mine != theirs for mine, theirs in zip(one["rows"], two["rows"], strict=False)):
            found.append(f"rows of {trial_id}")
    return found


def disturbed(
    name: str, kinds: Sequence[str], draw: random.Random, folder: Path, table: Path, nodes: Nodes
) -> tuple[list[str], int, dict[str, Any]]:
    """One sweep with these kills: what was hit, how many sessions it took, how it ended.

    Raises:
        SystemExit: a session hung, or ended with a code other than 0.
    """
    run, log, hits = RunFolder(folder / name), folder / f"{name}.log", []
    asked = configuration(name, folder, table, nodes.at_a_time)
    driver = start(["run", asked], nodes.cluster.address, log)
    waiting = list(kinds)
    while True:
        while waiting:
            hit = strike(waiting[0], draw, driver, run, nodes)
            if hit is None:
                break  # it had ended
            hits.append(hit)
            waiting.pop(0)
            if hit.startswith("driver"):
                driver.wait()
                driver = start(["resume", run.path], nodes.cluster.address, log)
        try:
            code = driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise SystemExit(f"{name} hung after {hits}; its output: {log}") from None
        if code:
            print(log.read_text()[-3000:], file=sys.stderr)
            raise SystemExit(f"{name} ended with code {code} after {hits}; its folder: {run.path}")
        return hits, len(read_manifest(run).sessions), outcome(run)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-a-time", type=int, default=1, help="trials")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    sweeps: list[dict[str, Any]] = []
    began = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["SWEEP_STORE"] = str(folder / "store")
        table = faces(folder, 120)
        nodes = Nodes(arguments.at_a_time)
        _, _, calm = disturbed("calm", [], draw, folder, table, nodes)
        number = 0
        while sum(counts.values()) < arguments.kills:
            number += 1
            left = arguments.kills - sum(counts.values())
            kinds = draw.choices(KINDS, SHARES, k=min(KILLS_A_SWEEP, left))
            hits, sessions, found = disturbed(
                f"disturbed-{number}", kinds, draw, folder, table, nodes
            )
            counts.update(hits)
            wrong = differences(calm, found, ordered=arguments.at_a_time == 1)
            print(
                f"{number}: {', '.join(hits) or 'no kill in time'}; {sessions} sessions: "
                f"{'differs in ' + ', '.join(wrong) if wrong else 'equal'}",
                flush=True,
            )
            sweeps.append({"hits": hits, "sessions": sessions, "differences": wrong})
        nodes.cluster.shutdown()
    bad = sum(bool(sweep["differences"]) for sweep in sweeps)
    facts = {
        "seed": arguments.seed,
        "at_a_time": arguments.at_a_time,
        "kills": dict(counts),
        "sweeps": sweeps,
        "sweeps_that_differ": bad,
        "seconds": time.time() - began,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{sum(counts.values())} kills in {len(sweeps)} sweeps: {bad} differ from the calm one")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
