"""One trial on a GPU or two: decided by speed and memory; the probe itself runs on the CPU device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from sweep.frozen.policy import feature_bytes
from sweep.on_ray import cluster
from sweep.request.config import SweepConfig, check_config
from sweep.resources.allocation import Allocation, Node
from sweep.resources.packing import Packed, Probe, held_bytes, packing, tried
from tests.support.faces import WIDTH, Faces, sweep_facts
from trainable.config import RunSettings, TrialConfig
from trainable.network.model import build_model, load_backbone

speeds = st.floats(1e-3, 1e6)
sizes = st.integers(1, 10**12)


@given(speeds, speeds, sizes, sizes)
def test_two_share_a_gpu_only_where_they_fit_with_a_tenth_to_spare_and_are_faster(
    one: float, two: float, each: int, total: int
) -> None:
    share = packing(one, two, each, total)
    assert share in (0.5, 1.0)
    if share == 0.5:
        assert 2 * each <= 0.9 * total and two > one
    assert packing(one, two, each, total // 2) >= share, "less memory never packs more"
    assert packing(one, two * 0.9, each, total) >= share, "nor does less speed"


def test_small_trials_that_leave_a_gpu_idle_share_it_and_large_ones_do_not() -> None:
    gigabyte = 10**9
    assert packing(1000, 1800, 10 * gigabyte, 80 * gigabyte) == 0.5
    assert packing(1000, 1800, 40 * gigabyte, 80 * gigabyte) == 1.0
    assert packing(1000, 1010, 10 * gigabyte, 80 * gigabyte) == 1.0
    assert packing(0, 0, 0, 0) == 1.0, "nothing was measured"


@pytest.fixture
def config(faces: Faces, tmp_path: Path) -> SweepConfig:
    trial = {
        "strategy": ["head", "block5", "full"],
        "augmentation": ["none", "flip"],
        "head": ["linear", "16"],
        "batch_size": {"int": [4, 8]},
    }
    search = {"method": "random", "trials": 3}
    return check_config(sweep_facts(faces, tmp_path, trial, search=search), {}, "test")


def test_what_is_tried_are_the_sweeps_own_models_at_their_largest_batch(
    config: SweepConfig,
) -> None:
    found = tried(config)
    assert {(each.strategy, each.head) for each in found} == {
        (strategy, head) for strategy in ("head", "block5", "full") for head in ("linear", "16")
    }
    assert {each.batch_size for each in found} == {8}


def test_what_a_trial_holds_is_every_view_of_every_image_at_its_largest_cut(
    config: SweepConfig,
) -> None:
    pixels = held_bytes(config, (100, 10), 2)
    assert pixels == 210 * 3 * 32 * 32 * 2
    facts = config.model_dump(mode="json")
    facts["trial"] |= {"strategy": ["head", "block5"], "augmentation": "none"}
    features = held_bytes(check_config(facts, {}, "test"), (100, 10), 4)
    assert features == 110 * feature_bytes(WIDTH, 32, 24, 4)


def test_the_probe_trains_the_largest_and_the_smallest_model(
    config: SweepConfig, tmp_path: Path
) -> None:
    run = RunSettings(
        folder=tmp_path, images=tmp_path, image_size=32, weights="none", width=WIDTH, epochs=1
    )
    probe = Probe(run, tried(config))
    backbone = load_backbone("none", WIDTH)
    largest = build_model(TrialConfig(strategy="full", head="16"), backbone)
    parameters = sum(p.numel() for p in largest.trained().values())
    assert probe.bytes_each == 4 * parameters, "a CPU has no peak"
    assert probe.rate(0.2) > 0
    packed = Packed(probe.rate(0.1), 0.0, probe.bytes_each, 10**9)
    assert packed.share == 1.0
    assert packed.facts()["gpus_per_trial"] == 1.0 and "1 on a GPU" in packed.said()


@pytest.fixture(scope="module")
def nodes_with_a_gpu_in_name() -> Iterator[list[Node]]:
    """A real Ray that counts a GPU where there is none."""
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False)
    yield cluster.nodes()
    ray.shutdown()


@pytest.mark.ray
def test_two_processes_that_share_a_gpu_are_measured_side_by_side(
    nodes_with_a_gpu_in_name: list[Node], config: SweepConfig, tmp_path: Path
) -> None:
    """Here both train on the CPU: all of it runs but CUDA."""
    run = RunSettings(
        folder=tmp_path, images=tmp_path, image_size=32, weights="none", width=WIDTH, epochs=1
    )
    packed = cluster.measure_packing(nodes_with_a_gpu_in_name, run, tried(config), 1000)
    assert isinstance(packed, Packed), packed
    assert packed.one > 0 and packed.two > 0 and packed.bytes_each > 1000
    assert packed.share == 1.0, "a CPU has no memory of a GPU"


@pytest.mark.ray
def test_what_goes_wrong_on_a_node_is_a_reason_and_no_traceback(
    nodes_with_a_gpu_in_name: list[Node], config: SweepConfig, tmp_path: Path
) -> None:
    run = RunSettings(
        folder=tmp_path, images=tmp_path, image_size=32, weights="gone.pth", width=WIDTH, epochs=1
    )
    why = cluster.measure_packing(nodes_with_a_gpu_in_name, run, tried(config), 0)
    assert isinstance(why, str) and "gone.pth" in why
    granted = Allocation(1.0, 1, 1)
    problem = cluster.graph_problem(nodes_with_a_gpu_in_name, granted, "bfloat16")
    assert problem and "\n" not in problem, "there is no GPU but in name"
