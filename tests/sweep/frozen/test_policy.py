"""What is kept: the cheapest choice that fits, from rates and sizes alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweep.frozen.policy import (
    StorePlan,
    decide_for,
    demands,
    expected_epochs,
    feature_bytes,
    together,
    what_is_kept,
)
from sweep.frozen.rates import Rates
from sweep.request.config import SweepConfig, check_config
from sweep.show.plan import predicted_seconds
from trainable.config import Kept
from trainable.network.model import frozen_layers, load_backbone

SLOW = Rates(1e-3, {24: 0.27, 31: 0.027}, 5e-10, 1e-9, 10**12)  # full width at 224 px, one CPU core


def config(**changed: object) -> SweepConfig:
    trial = {"strategy": ["head", "block5"], "augmentation": ["none", "flip", "flip_jitter"]}
    trial |= {"lr": [1e-4, 1e-3], "epochs": 10}
    facts = {
        "name": "run",
        "data": {"images": "faces", "target": "Smiling"},
        "trial": trial | changed,
        "search": {"method": "grid"},
        "asha": "off",
    }
    return check_config(facts, {}, "test")


def decide(rates: Rates = SLOW, **changed: object) -> StorePlan:
    return decide_for(config(**changed), rates, 24_000, 3_000, half=False)


def test_where_frozen_layers_are_slow_everything_between_them_and_the_trials_is_kept() -> None:
    assert [str(each) for each in decide().kept] == ["24 epoch", "24 fixed", "31 epoch", "31 fixed"]
    assert decide().seconds_plain / decide().seconds_shared > 5


def test_a_gpu_that_waits_for_decoding_keeps_the_images_too() -> None:
    fast = Rates(1e-3, {24: 1e-4, 31: 1e-5}, 1e-10, 2e-10, 10**12)
    assert Kept(0, "fixed") in decide(fast).kept


def test_nothing_is_kept_for_one_trial_of_one_epoch() -> None:
    once = decide(strategy="head", augmentation="none", lr=1e-4, epochs=1)
    assert once.kept == ()
    assert "nothing is worth keeping" in once.said()


def test_without_frozen_layers_only_images_can_be_kept() -> None:
    assert decide(strategy="full").kept == (Kept(0, "fixed"),)


@pytest.mark.parametrize("gigabytes", [0, 1, 5, 20, 50, 500])
def test_what_is_kept_fits_below_the_limit(gigabytes: int) -> None:
    limited = Rates(SLOW.decode, SLOW.layers, SLOW.read, SLOW.write, gigabytes * 10**9)
    decision = decide(limited)
    assert decision.bytes <= gigabytes * 10**9
    smallest = 51_000 * 7 * 7 * 512 * 4  # two views of each training image, after all layers
    assert (decision.kept == ()) == (gigabytes * 10**9 < smallest)


@given(
    st.floats(1e-5, 1e-2),
    st.floats(1e-5, 1.0),
    st.floats(1e-6, 0.1),
    st.floats(1e-11, 1e-7),
    st.integers(0, 200),
)
def test_no_other_choice_within_the_limit_is_predicted_to_be_faster(
    decode: float, low: float, high: float, byte: float, gigabytes: int
) -> None:
    rates = Rates(decode, {24: low, 31: high}, byte, 2 * byte, gigabytes * 10**9)
    decision = decide(rates)
    assert decision.bytes <= rates.limit_bytes
    assert decision.seconds_shared <= decision.seconds_plain / 0.98


def test_on_a_gpu_each_trial_holds_what_it_finds_room_for() -> None:
    for gpu_bytes in (8 * 10**9, 140 * 10**9):
        rates = replace(SLOW, gpu_bytes=gpu_bytes)
        assert decide(rates, augmentation="flip", strategy="head").sharing(None).resident
    assert not decide(augmentation="flip", strategy="head").sharing(None).resident, "no GPU"


H200 = Rates(
    decode=1 / 8271,
    layers={24: 1 / 8900, 31: 1 / 250_000},
    read=1 / 3e9,
    write=1 / 4e9,
    limit_bytes=10**12,
    gpu_bytes=143 * 10**9,
    copy=1 / 55e9,
)


def test_a_gpus_filling_takes_as_long_as_its_slowest_stage_and_a_cpus_as_all_of_them() -> None:
    """51,000 views: the layers alone take 51,000 / 8,900 s, decoding about as long, and writing 3.8 s."""
    wanted = {"augmentation": ["none", "flip"], "strategy": "block5"}
    there = decide_for(config(**wanted), H200, 24_000, 3_000, half=True)
    assert Kept(24, "fixed") in there.kept
    assert 51_000 / 8900 <= there.fill_seconds <= 1.4 * 51_000 / 8271
    here = decide_for(config(**wanted), replace(H200, gpu_bytes=0), 24_000, 3_000, half=True)
    assert here.fill_seconds > 1.5 * there.fill_seconds


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_stages_that_overlap_are_never_slower_than_one_after_another(stages: list[float]) -> None:
    beside, after = together(stages, True), together(stages, False)
    assert max(stages) == beside <= after + 1e-6
    assert after <= len(stages) * beside + 1e-6


def test_what_is_kept_is_filled_once_however_many_trials_there_are() -> None:
    few, many = decide(lr=[1e-4, 1e-3]), decide(lr=[1e-4, 2e-4, 5e-4, 1e-3])
    assert few.kept == many.kept
    assert few.fill_seconds == pytest.approx(many.fill_seconds)
    assert many.seconds_plain == pytest.approx(2 * few.seconds_plain)
    assert 0 < few.fill_seconds < few.seconds_shared
    assert decide(strategy="head", augmentation="none", lr=1e-4, epochs=1).fill_seconds == 0


@pytest.mark.parametrize("cut", [10, 17, 24, 31])
@pytest.mark.parametrize(("width", "side"), [(0.25, 64), (0.05, 50)])
def test_sizes_are_those_of_the_layers_own_output(cut: int, width: float, side: int) -> None:
    layers = frozen_layers(load_backbone("none", width))
    found = layers[:cut](torch.zeros(1, 3, side, side))
    assert feature_bytes(width, side, cut, 4) == found.nbytes


def test_asha_lets_fewer_epochs_be_asked_for() -> None:
    facts = config().model_dump(mode="json") | {"asha": {"grace_period": 2, "reduction_factor": 2}}
    halved = check_config(facts, {}, "test")
    assert expected_epochs(config()) == 10
    assert expected_epochs(halved) == 2 + 2 / 2 + 4 / 4 + 2 / 8
    both = [sum(d.uses for d in demands(c, 100, 10)) for c in (config(), halved)]
    assert both[1] / both[0] == pytest.approx(expected_epochs(halved) / 10)


def test_twice_the_trials_are_predicted_to_train_twice_as_long() -> None:
    few, many = config(lr=[1e-4, 1e-3]), config(lr=[1e-4, 2e-4, 5e-4, 1e-3])
    frozen, rate = 100.0, 2_000.0
    seconds = [predicted_seconds(each, 24_000, frozen, rate) - frozen for each in (few, many)]
    assert seconds == [12 * 10 * 24_000 / rate, 24 * 10 * 24_000 / rate]


def test_every_choice_has_a_name_for_people() -> None:
    names = [what_is_kept(Kept(cut, f)) for cut in (0, 10, 17, 24, 31) for f in ("fixed", "epoch")]
    assert len(set(names)) == 9  # decoded images have one family
