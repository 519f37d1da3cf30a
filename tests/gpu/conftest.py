"""Jobs of the GPU benchmark's experiments: on a GPU at full size, on a CPU, in its place, at the smallest."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu_stages.job import Job
from tests.support.faces import write_faces

SIZES = {
    "cuda": {"training": 512, "validation": 128, "image_size": 224, "width": 1.0, "head": "mlp"},
    "cpu": {"training": 40, "validation": 8, "image_size": 32, "width": 0.05, "head": "16"},
}


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """A job on the device that the test names, with images of its own."""
    sizes = SIZES[request.param]
    made = Job(device=request.param, folder=tmp_path, test=0, cpus=1, **sizes)  # type: ignore[arg-type]
    write_faces(made.faces, made.training + made.validation, images="faces", table=made.table.name)
    return made


def pytest_collection_finish(session: pytest.Session) -> None:
    """Who asks for GPU tests where there is no GPU must not be told that all is well."""
    asked = [item for item in session.items if item.get_closest_marker("gpu")]
    if asked and not session.config.option.collectonly and not torch.cuda.is_available():
        raise pytest.UsageError(
            f"none of the {len(asked)} tests marked gpu was run, since torch sees no GPU on this machine; "
            "run them on one, or leave them out by -m 'not gpu'"
        )
