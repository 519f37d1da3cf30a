"""Runs the demo's commands on its own faces: draw, search, test once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_stages.job import ROOT, with_project


def demo(folder: Path, faces: int, *overrides: str) -> dict[str, Any]:
    """Test accuracy of the winner, and the path of the run's manifest; `overrides` change the demo's sweep.yaml.

    Raises:
        RuntimeError: a command failed; its text is the end of its output.
    """
    data, run = folder / "data", folder / "demo"
    environment = with_project() | {"SWEEP_STORE": str(folder / "store")}
    where = (
        f"storage={folder}",
        f"data.images={data / 'images'}",
        f"data.table={data / 'faces.csv'}",
    )
    for words in (
        ("examples/demo/faces.py", str(faces), str(data)),
        ("-m", "sweep", "run", "examples/demo/sweep.yaml", *where, *overrides),
        ("-m", "analysis", "test", str(run)),
    ):
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError((ended.stdout + ended.stderr).strip()[-1500:])
    facts = json.loads((run / "test.json").read_text())
    return {"manifest": str(run / "manifest.json"), "test_accuracy": facts["result"]["accuracy"]}
