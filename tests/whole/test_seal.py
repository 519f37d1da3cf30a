"""What a sweep opens while it trains, seen by the kernel: no test image, ever."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.support.faces import Faces, sha256_of, write_faces
from tests.support.project import ROOT
from trainable.records.manifest import read_manifest
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
    assert opened(trace, faces.images) == set(split.loc[split["part"] != "test", "file"])


@pytest.mark.whole
@pytest.mark.system("strace")
def test_the_winner_opens_the_images_that_it_is_asked_about_and_no_other(
    run: Path, tmp_path: Path
) -> None:
    """Exported, loaded and asked under one trace; of a test image the bytes are read, and no answer comes."""
    images = read_manifest(RunFolder(run)).image_folder
    split = pd.read_parquet(run / "split.parquet")
    asked = split.loc[split["part"] == "validation", "file"].tolist()[:2]
    sealed = split.loc[split["part"] == "test", "file"].iloc[0]
    trace = tmp_path / "trace"

    def traced(files: list[str]) -> subprocess.CompletedProcess[str]:
        program = (
            "import sys, analysis; from pathlib import Path; from analysis.winner.export import export_winner; "
            f"export_winner(sys.argv[1], Path({str(tmp_path)!r}, str(len(sys.argv)) + '.safetensors')); "
            "print(len(analysis.load_winner(sys.argv[1]).predict(sys.argv[2:])))"
        )
        command = [sys.executable, "-c", program, str(run), *(str(images / file) for file in files)]
        return subprocess.run(
            [*STRACE, str(trace), *command], cwd=ROOT, capture_output=True, text=True
        )

    done = traced(asked)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert opened(trace, images) == set(asked)
    refused = traced([*asked, sealed])
    assert refused.returncode != 0 and "1 of the 3 images are test images" in refused.stderr
    assert opened(trace, images) == {*asked, sealed}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # traced, also on a slow machine
@pytest.mark.system("strace")
def test_a_whole_sweep_and_what_is_made_of_it_opens_no_test_image_until_the_test(
    tmp_path: Path, configure: Callable[..., Path], many: Faces
) -> None:
    """The inspection alone may look at them, before: `sweep plan` does, and what it remembers needs no second look.

    Traced then: every process of run, extend, resume, status, results and report, Ray's workers among them.
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
        return opened(trace, many.images)

    assert traced(f"sweep plan {config}") == set(many.files)
    training = traced(
        f"analysis explore {config} --out {tmp_path / 'explored'}",
        f"sweep run {config}",
        f"sweep extend {run.path} --epochs 2",
        f"sweep resume {run.path}",
        f"sweep status {run.path}",
        f"analysis results {run.path}",
        f"analysis report {run.path}",
    )
    split = pd.read_parquet(run.split)
    assert [len(record.rows()) for record in run.trials()] == [2]
    assert training == set(split.loc[split["part"] != "test", "file"])
    tested = traced(f"analysis test {run.path}")
    assert tested == set(split.loc[split["part"] == "test", "file"])
    reported = traced(f"analysis report {run.path}", f"analysis test {run.path}")
    assert reported <= set(split.loc[split["part"] == "validation", "file"])


def opened(trace: Path, images: Path) -> set[str]:
    """The images in this folder that any traced process opened."""
    return set(re.findall(rf"{re.escape(str(images))}/(\d+\.jpg)", trace.read_text()))
