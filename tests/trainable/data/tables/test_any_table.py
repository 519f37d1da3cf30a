"""Whatever a table looks like, its labels are those that it was made with, or it is refused in one line.

FUZZ=20000 and FUZZ_PROCESSES=200 try more than a few (docs/explanation/reliability.md says how many were tried).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from tests.support.faces import picture
from tests.support.made_tables import Made, made
from trainable.config import DataConfig
from trainable.data import open_table
from trainable.errors import RequestError

MANY = int(os.environ.get("FUZZ", min(150, 2 * settings().max_examples)))
PROCESSES = int(os.environ.get("FUZZ_PROCESSES", 2))


def labels_by_file(rows: pd.DataFrame) -> dict[str, int]:
    return {Path(file).name: label for file, label in rows[["file", "label"]].values}


@settings(max_examples=MANY, suppress_health_check=[HealthCheck.too_slow])
@given(made())
def test_labels_are_the_truth_or_the_table_is_refused_in_one_line(table: Made) -> None:
    with tempfile.TemporaryDirectory() as name:
        images = table.put(Path(name), Path.touch)
        data = DataConfig(images=images, target=table.target, **table.settings)
        try:
            found = open_table(data)
        except RequestError as error:
            assert "\n" not in str(error)
            assert not table.is_right, f"refused: {error}"
        else:
            assert labels_by_file(found.rows) == table.truth()
            assert table.is_right, "it was read"


@pytest.mark.slow
@pytest.mark.timeout(300 + 10 * PROCESSES)
@settings(max_examples=PROCESSES, suppress_health_check=list(HealthCheck))
@given(made())
def test_the_command_plans_the_truth_or_ends_with_one_line_and_leaves_nothing(table: Made) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = table.put(root, lambda path: picture(1, hash(path.name) % 99, 16).save(path))
        config = {
            "name": "run",
            "storage": str(root / "runs"),
            "data": {"images": str(images), "target": table.target, "image_size": 32, **table.settings,
                     "split": {"validation": 0.25, "test": 0.25}},
            "model": {"weights": "none", "width": 0.05},
            "trial": {"strategy": "head", "lr": [1e-3, 1e-2], "head": 8, "epochs": 1},
            "search": {"method": "grid"},
            "sharing": "off",
        }  # fmt: skip
        (root / "sweep.yaml").write_text(yaml.safe_dump(config))
        before = set(root.iterdir())
        done = subprocess.run(
            [sys.executable, "-m", "sweep", "plan", str(root / "sweep.yaml")],
            capture_output=True,
            text=True,
            env=os.environ | {"SWEEP_STORE": str(root.parent / "fuzz-store")},
        )
        assert set(root.iterdir()) == before
        if table.is_right:
            assert done.returncode == 0, done.stderr
            ones = sum(table.truth().values())
            assert f"({ones} rows) counts as 1" in done.stdout
        else:
            assert done.returncode == 2, done.stdout
            assert len(done.stderr.splitlines()) == 1, done.stderr
