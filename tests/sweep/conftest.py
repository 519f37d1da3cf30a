"""What tests of the commands begin with."""

from pathlib import Path

import pytest

from sweep.request.config import SweepConfig, check_config
from tests.support.faces import Faces, sweep_facts


@pytest.fixture
def config(faces: Faces, tmp_path: Path) -> SweepConfig:
    trial = {"strategy": ["head", "block5"], "epochs": 3}
    return check_config(sweep_facts(faces, tmp_path / "runs", trial), {}, "test")
