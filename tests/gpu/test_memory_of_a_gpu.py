"""Memory that runs out, is parted between trials, and must not grow with captures; the demo learns on a GPU."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.gpu_stages.bench import digits
from benchmarks.gpu_stages.demo import demo
from benchmarks.gpu_stages.equality import small
from benchmarks.gpu_stages.job import Job
from benchmarks.gpu_stages.memory import SETTLED, full_inside, full_outside, many_captures
from benchmarks.gpu_stages.packing import beside
from tests.gpu.test_same_training import least, on_each_device

RAISED_OUTSIDE = {"cuda": "OutOfMemoryError", "cpu": ""}  # a CPU's memory has no limit of ours
RAISED_INSIDE = {"cuda": "CaptureFailed", "cpu": "RuntimeError"}  # and captures nothing


@on_each_device
def test_a_trial_after_one_that_found_no_memory_is_as_it_would_have_been(job: Job) -> None:
    bench = small(job, 40, 8, epochs=1, precision=job.half).sharing("resident")
    found = full_outside(bench)
    assert found["kind"] == RAISED_OUTSIDE[job.device], found
    assert found["digits_afterwards"] >= least(job), found


@on_each_device
def test_memory_that_runs_out_inside_a_capture_is_said_to_be_that(job: Job) -> None:
    """Whether the process can go on is for nobody to rely on: its actor ends."""
    bench = small(job, 40, 8, epochs=1, precision=job.half).sharing("resident")
    assert full_inside(bench)["kind"] == RAISED_INSIDE[job.device]


@on_each_device
def test_captures_take_no_more_memory_each_while_another_thread_copies(job: Job) -> None:
    trials = 20 if job.device == "cuda" else 3
    bench = small(job, 100, 20, epochs=2, precision=job.half)
    found = many_captures(bench, trials)
    assert found["copies"] > 0
    assert found["digits_as_first"] >= least(job), found
    reserved = found["reserved_bytes"]
    assert max(reserved) <= max(reserved[:SETTLED]), reserved


@pytest.mark.parametrize(
    "job",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)],
    indirect=True,
)
def test_two_trials_on_half_a_device_each_find_what_one_alone_finds(job: Job) -> None:
    alone, both = (beside(job, "head", count) for count in (1, 2))
    rows = [*alone["results"], *both["results"]]
    assert len(rows) == 3
    assert min(digits(one, other) for one, other in pairwise(rows)) >= least(job), rows


@pytest.mark.gpu
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", ["cuda"], indirect=True)
def test_the_demo_learns_on_a_gpu(job: Job) -> None:
    found = demo(job.folder / "demo", 2000)
    assert json.loads(Path(found["manifest"]).read_text())["settings"]["device"] == "cuda"
    assert found["test_accuracy"] >= 0.90, found
