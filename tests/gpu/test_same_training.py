"""A trial is the same whether or not it shares its frozen work, is captured, or stops in between: on a GPU too."""

import pytest

from benchmarks.gpu_stages.bench import ALL_DIGITS
from benchmarks.gpu_stages.equality import cases, compare, full, setting, small
from benchmarks.gpu_stages.graphs import OPTIMIZERS, graph_against_eager, resumed
from benchmarks.gpu_stages.job import Job
from trainable.config import Precision

DIGITS = 7.0  # of a float32
CAPTURED_DIGITS = (
    5.0  # of a loss after some epochs: a library may choose other kernels under capture
)
SKIPPED_BY_ITSELF, SKIPPED_IF_FORCED = (
    3,
    10,
)  # steps until the scale, halved each time, is small enough

on_each_device = pytest.mark.parametrize(
    "job", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True
)


def least(job: Job, on_a_gpu: float = DIGITS) -> float:
    """Digits that must be equal: all of them on a CPU."""
    return on_a_gpu if job.device == "cuda" else ALL_DIGITS


def runs_on(job: Job) -> int:
    """Of the plain path: a CPU must repeat itself to the last bit, a GPU has a spread."""
    return 3 if job.device == "cuda" else 2


@on_each_device
@pytest.mark.parametrize(("precision", "strategy", "deterministic"), cases())
def test_sharing_changes_no_more_than_the_plain_path_differs_from_itself(
    job: Job, precision: Precision, strategy: str, deterministic: bool
) -> None:
    """64 pixels, a quarter of the channels: there a GPU was seen to repeat what is deterministic to seven digits."""
    found = compare(small(job, 512, 128), setting(strategy, "64"), precision, runs_on(job))
    if deterministic:
        assert found.plain_digits >= least(job) and found.shared_digits >= least(job), found
    else:
        assert found.shared_digits >= min(found.plain_digits - 1, least(job)), found


@on_each_device
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("strategy", ["head", "block5"])
def test_nor_does_it_at_full_size(job: Job, precision: Precision, strategy: str) -> None:
    bench = full(job, 512, 128, epochs=2)
    found = compare(bench, setting(strategy, job.head), precision, runs_on(job))
    assert found.shared_digits >= min(found.plain_digits - 1, least(job)), found


@on_each_device
@pytest.mark.parametrize("strategy", ["head", "block5"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_captured_step_is_the_eager_one(job: Job, optimizer: str, strategy: str) -> None:
    """Dropout is drawn anew in each epoch, and the last batch of each is odd."""
    found = graph_against_eager(small(job, 40, 8), strategy, optimizer, job.half)
    assert found["loss_digits"] >= least(job, CAPTURED_DIGITS), found
    assert found["skipped_eager"] == found["skipped_graph"] == 0


@on_each_device
@pytest.mark.parametrize("infinities", [False, True])
def test_a_captured_step_in_float16_skips_what_the_eager_one_skips(
    job: Job, infinities: bool
) -> None:
    found = graph_against_eager(small(job, 40, 8), "head", "adam", "float16", infinities)
    assert found["loss_digits"] >= least(job, CAPTURED_DIGITS), found
    assert found["skipped_eager"] == found["skipped_graph"]
    few, many = SKIPPED_BY_ITSELF, SKIPPED_IF_FORCED
    assert found["skipped_eager"] >= many if infinities else found["skipped_eager"] <= few, found


@on_each_device
@pytest.mark.parametrize("graphs", [False, True])
def test_a_trial_that_goes_on_equals_one_that_did_not_stop(job: Job, graphs: bool) -> None:
    bench = small(job, 100, 20, graphs=graphs, precision=job.half).sharing("resident")
    found = resumed(bench, setting("head", "64", batch_size=16))
    assert found["row_digits"] >= least(job), found
    assert found["same_weights"] or job.device == "cuda"
