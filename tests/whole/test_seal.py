"""What a sweep opens while it trains, seen by the kernel: no test image, ever."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Faces, sha256_of, write_faces
from tests.support.project import ROOT
from trainable.records.run_folder import RunFolder

STRACE = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=open,openat", "-o"]

TRIAL = """
from pathlib import Path
from trainable.config import RunSettings, Sharing, TrialConfig
from trainable.data import open_training_data
from trainable.frozen.shared import Shared
from trainable.fit import fit
from trainable.network.model import load_backbone
sharing = Sharing(kept=frozenset(["0 fixed", "31 fixed"]))
run = RunSettings(folder=Path("{folder}"), images=Path("{images}"), image_size=32, weights="none", width=0.05, epochs=2,
                  sharing=sharing, store=Path("{folder}") / "store")
data, backbone = open_training_data(Path("{split}"), run.images, 32), load_backbone("none", 0.05)
for shared in (None, Shared(run, data, backbone)):
    for row in fit(TrialConfig(strategy="head", head="linear"), run, data, backbone, None, shared):
        pass
"""


@pytest.mark.system("strace")
def test_a_trial_opens_every_training_and_validation_image_and_no_test_image(
    tmp_path: Path,
) -> None:
    faces = write_faces(tmp_path, 40)
    split = pd.DataFrame(
        {
            "file": faces.files,
            "label": [int(s > 0) for s in faces.smiling],
            "sha256": sha256_of(faces),
            "part": ["train"] * 24 + ["validation"] * 8 + ["test"] * 8,
        }
    )
    split.to_parquet(tmp_path / "split.parquet")
    program = TRIAL.format(folder=tmp_path, images=faces.images, split=tmp_path / "split.parquet")
    trace = tmp_path / "trace"
    subprocess.run(
        [*STRACE, str(trace), sys.executable, "-c", program],
        check=True,
        cwd=ROOT,
    )
    assert opened(trace, faces) == set(split.loc[split["part"] != "test", "file"])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.system("strace")
def test_a_whole_sweep_and_what_is_made_of_it_opens_no_test_image_until_the_test(
    tmp_path: Path, configure: Callable[..., Path], many: Faces
) -> None:
    """The inspection alone may look at them, before: `sweep plan` does, and what it remembers needs no second look.

    Traced then: every process of run, extend, resume, status, results, report and export, Ray's workers among them.
    `analysis predict` opens what it is given: of test images, which it refuses, their bytes for their digest.
    """
    config = configure({"lr": 1e-3, "epochs": 1})
    run, trace = RunFolder(tmp_path / "run"), tmp_path / "trace"
    environment = {**os.environ, "SWEEP_STORE": str(tmp_path / "store")}

    def traced(*commands: str) -> set[str]:
        program = " && ".join(f"{sys.executable} -m {command}" for command in commands)
        done = subprocess.run(
            [*STRACE, str(trace), "sh", "-c", program],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return opened(trace, many)

    assert traced(f"sweep plan {config}") == set(many.files)
    training = traced(
        f"analysis explore {config} --out {tmp_path / 'explored'}",
        f"sweep run {config}",
        f"sweep extend {run.path} --epochs 2",
        f"sweep resume {run.path}",
        f"sweep status {run.path}",
        f"analysis results {run.path}",
        f"analysis report {run.path}",
        f"analysis export {run.path} --model {tmp_path / 'winner.safetensors'}",
    )
    split = pd.read_parquet(run.split)
    assert [len(record.rows()) for record in run.trials()] == [2]
    assert training == set(split.loc[split["part"] != "test", "file"])
    given = split.loc[split["part"] == "validation", "file"].tolist()[:2]
    paths = " ".join(str(many.images / file) for file in given)
    assert traced(f"analysis predict {run.path} {paths}") == set(given)
    tested = traced(f"analysis test {run.path}")
    assert tested == set(split.loc[split["part"] == "test", "file"])
    reported = traced(f"analysis report {run.path}", f"analysis test {run.path}")
    assert reported <= set(split.loc[split["part"] == "validation", "file"])


def opened(trace: Path, faces: Faces) -> set[str]:
    """The images that any traced process opened."""
    return set(re.findall(rf"{re.escape(str(faces.images))}/(\d+\.jpg)", trace.read_text()))
