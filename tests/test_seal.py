"""What a sweep opens while it trains, seen by the kernel: no test image, ever."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import sha256_of, write_faces

TRIAL = """
from pathlib import Path
from trainable.config import RunSettings, Sharing, TrialConfig
from trainable.data import open_training_data
from trainable.features import Shared
from trainable.fit import fit
from trainable.model import load_backbone
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
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=open,openat",
            "-o",
            trace,
            sys.executable,
            "-c",
            program,
        ],
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    opened = set(re.findall(rf"{re.escape(str(faces.images))}/(\d+\.jpg)", trace.read_text()))
    assert opened == set(split.loc[split["part"] != "test", "file"])
