"""What is kept: the cheapest choice that fits, from rates and sizes alone."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweep.frozen.policy import (
    Demand,
    StorePlan,
    decide_for,
    demands,
    expected_epochs,
    feature_bytes,
    fill_seconds,
    slot_seconds,
    together,
    what_is_kept,
)
from sweep.frozen.policy import decide as choose
from sweep.frozen.rates import Rates
from sweep.request.config import SweepConfig, check_config
from sweep.show.plan import predicted_seconds
from trainable.config import Kept
from trainable.network.model import CUTS, frozen_layers, load_backbone

SLOW = Rates(1e-3, {24: 0.27, 31: 0.027}, 5e-10, 1e-9, 10**12)  # full width at 224 px, one CPU core


def config(**changed: object) -> SweepConfig:
    trial: dict[str, object] = {
        "strategy": ["head", "block5"],
        "augmentation": ["none", "flip", "flip_jitter"],
    }
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
    plan = decide(limited)
    assert plan.bytes <= gigabytes * 10**9
    smallest = 51_000 * 7 * 7 * 512 * 4  # two views of each training image, after all layers
    assert (plan.kept == ()) == (gigabytes * 10**9 < smallest)


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
    plan = decide(rates)
    assert plan.bytes <= rates.limit_bytes
    assert plan.seconds_shared <= plan.seconds_plain / 0.98


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


def test_decoded_images_are_a_byte_a_pixel_and_channel() -> None:
    assert feature_bytes(0.25, 50, 0, 4) == torch.zeros(1, 3, 50, 50, dtype=torch.uint8).nbytes


@pytest.mark.parametrize(
    ("changed", "half", "expected"),
    [
        ({"strategy": "full"}, False, 27_000 * 3 * 224 * 224),
        ({"strategy": "head", "augmentation": "none"}, False, 27_000 * 7 * 7 * 512 * 4),
        ({"strategy": "head", "augmentation": "none"}, True, 27_000 * 7 * 7 * 512 * 2),
        ({"strategy": "head", "augmentation": "flip"}, False, 51_000 * 7 * 7 * 512 * 4),
    ],
)
def test_what_is_kept_takes_the_room_of_all_images_that_are_seen(
    changed: dict[str, object], half: bool, expected: int
) -> None:
    assert decide_for(config(**changed), SLOW, 24_000, 3_000, half).bytes == expected


def test_what_is_kept_and_how_much_of_the_disk_it_takes_is_told_in_gigabytes() -> None:
    """51,000 views of 7 x 7 x 512 numbers of four bytes each."""
    said = decide(strategy="head", augmentation="flip").said()
    assert "features after all layers (at most 5.12 GB per node)" in said


def test_a_store_in_half_precision_takes_half_the_room() -> None:
    facts = config(strategy="head").model_dump(mode="json") | {"store": {"format": "float16"}}
    rounded = decide_for(check_config(facts, {}, "test"), SLOW, 24_000, 3_000, half=False)
    assert rounded.kept == decide(strategy="head").kept
    assert 2 * rounded.bytes == decide(strategy="head").bytes
    assert 2 * rounded.held_bytes == decide(strategy="head").held_bytes


@pytest.mark.parametrize(
    "changed",
    [
        {"augmentation": "none"},
        {"augmentation": ["none", "flip"]},
        {"augmentation": "flip_jitter", "strategy": "block4"},
        {"augmentation": ["flip_jitter", "none", "flip"], "strategy": ["full", "head", "block3"]},
        {"augmentation": "flip_jitter", "views": [2, 3]},
        {"augmentation": "flip_jitter", "views": 20},
    ],
)
def test_what_is_asked_for_is_what_a_walk_through_the_whole_sweep_meets(
    changed: dict[str, object],
) -> None:
    """Each trial, epoch and image of the grid; an image may come flipped where `flip` is among the augmentations."""
    sweep, uses = config(epochs=4, **changed), Counter[Kept]()
    views: defaultdict[Kept, set[tuple[object, int]]] = defaultdict(set)
    trials = [sweep.space.settings(point) for point in sweep.space.points()]
    flips = any(trial.augmentation == "flip" for trial in trials)
    for trial in trials:
        cut = CUTS[trial.strategy]
        jitters = trial.augmentation == "flip_jitter"
        own, fixed = Kept(cut, "epoch" if jitters else "fixed"), Kept(cut, "fixed")
        for epoch in range(4):
            for image in range(5):
                uses[own] += 1
                looks = [epoch % (trial.views or 4)] if jitters else [0, 1][: 1 + flips]
                views[own] |= {(image, look) for look in looks}
            for image in range(3):
                uses[fixed] += 1
                views[fixed].add(("validation", image))
    found = demands(sweep, 5, 3)
    assert {d.kept: (d.uses, d.distinct) for d in found} == {
        kept: (pytest.approx(uses[kept]), len(views[kept])) for kept in uses
    }
    assert len(found) == len(uses)


# ---------------------------------------------------------------- small sums, done by hand

SIZES = {0: 10, 24: 8, 31: 5}.__getitem__
CPU = Rates(decode=1, layers={24: 2, 31: 1}, read=0.01, write=0.02, limit_bytes=10**6, copy=0.04)
GPU = replace(CPU, gpu_bytes=1)
ASKED = [
    Demand(24, "fixed", uses=400, distinct=30),
    Demand(31, "fixed", uses=1000, distinct=30),
    Demand(31, "epoch", uses=500, distinct=100),
]
PIXELS, BLOCK5, HEAD, EPOCHS = Kept(0, "fixed"), *(d.kept for d in ASKED)


@pytest.mark.parametrize(
    ("rates", "kept", "fill", "other"),
    [
        # an image takes 1 s to decode, 2 s to block 5, 3 s to the head
        (CPU, [], [], [400 * 3, 1000 * 4, 500 * 4]),
        (GPU, [], [], [400 * 2, 1000 * 3, 500 * 3]),
        # both cuts from one pass; 30 · 8 + 30 · 5 bytes are copied and written, then 0.08 and 0.05 s read an image
        (CPU, [BLOCK5, HEAD], [30 * 4, 390 * 0.06], [400 * 0.08, 1000 * 0.05, 500 * 4]),
        (GPU, [BLOCK5, HEAD], [30 * 3], [400 * 0.08, 1000 * 0.05, 500 * 3]),
        (replace(GPU, write=1), [BLOCK5, HEAD], [390], [400 * 0.08, 1000 * 0.05, 500 * 3]),
        (replace(GPU, copy=2), [BLOCK5, HEAD], [390 * 2], [400 * 0.08, 1000 * 0.05, 500 * 3]),
        # the head alone goes through all layers, block 5 alone does not
        (CPU, [HEAD], [30 * 4, 150 * 0.06], [400 * 3, 1000 * 0.05, 500 * 4]),
        (CPU, [BLOCK5], [30 * 3, 240 * 0.06], [400 * 0.08, 1000 * 4, 500 * 4]),
        # 20 images are decoded once and read in 0.1 s from then on
        (CPU, [PIXELS], [20, 200 * 0.02], [400 * 2.1, 1000 * 3.1, 500 * 3.1]),
        (GPU, [PIXELS], [20], [400 * 2, 1000 * 3, 500 * 3]),
        (replace(GPU, write=1), [PIXELS], [200], [400 * 2, 1000 * 3, 500 * 3]),
        (
            CPU,
            [PIXELS, EPOCHS],
            [20, 200 * 0.02, 100 * 3.1, 500 * 0.06],
            [400 * 2.1, 1000 * 3.1, 500 * 0.05],
        ),
        # each family is a pass of its own
        (CPU, [HEAD, EPOCHS], [130 * 4, 650 * 0.06], [400 * 3, 1000 * 0.05, 500 * 0.05]),
    ],
)
def test_seconds_are_those_that_are_added_up_by_hand(
    rates: Rates, kept: list[Kept], fill: list[float], other: list[float]
) -> None:
    said = fill_seconds(ASKED, rates, 20, SIZES, frozenset(kept))
    assert said == pytest.approx(sum(fill))
    assert slot_seconds(ASKED, rates, 20, SIZES, frozenset(kept)) == pytest.approx(
        sum(fill) + sum(other)
    )


@pytest.mark.parametrize(
    ("limit", "decode", "kept", "takes", "seconds"),
    [
        (149, 1, (), 0, 3000),
        (150, 1, (HEAD,), 150, 143),  # 30 · 3 to compute, 3 to write, 50 to read
        (350, 1, (PIXELS, HEAD), 350, 140),  # 24 for 20 images; 30 · 2.1 + 3 + 50
        (350, 0.75, (HEAD,), 150, 135.5),  # with the images 135, and 200 bytes more
    ],
)
def test_the_fastest_that_fits_is_kept_and_the_smaller_of_two_that_are_as_fast(
    limit: int, decode: float, kept: tuple[Kept, ...], takes: int, seconds: float
) -> None:
    rates = replace(CPU, decode=decode, layers={31: 2}, copy=0, limit_bytes=limit)
    found = choose([Demand(31, "fixed", 1000, 30)], rates, 20, SIZES)
    assert (found.kept, found.bytes) == (kept, takes)
    assert found.seconds_plain == pytest.approx(1000 * (2 + decode))
    assert found.seconds_shared == pytest.approx(seconds)
    assert found.fill_seconds == pytest.approx(seconds - 50 if kept else 0)


def test_where_frozen_work_takes_no_time_or_nobody_asks_for_it_nothing_is_kept() -> None:
    free = replace(CPU, decode=0, layers={}, read=0, write=0, copy=0)
    for found in (choose(ASKED, free, 20, SIZES), choose([], CPU, 20, SIZES)):
        assert (found.kept, found.bytes, found.seconds_shared) == ((), 0, 0)


def test_a_trial_holds_an_epochs_own_views_and_every_fixed_one_at_its_cut() -> None:
    assert choose(ASKED[1:], CPU, 20, SIZES).held_bytes == 5 * (20 + 30)
    both = choose([*ASKED[:2], Demand(24, "epoch", 500, 100)], CPU, 20, SIZES)
    assert {BLOCK5, HEAD, Kept(24, "epoch")} <= set(both.kept)
    assert both.held_bytes == 8 * (20 + 30)
    assert choose(ASKED, replace(CPU, limit_bytes=0), 20, SIZES).held_bytes == 0
    assert choose([Demand(0, "fixed", 1000, 20)], CPU, 20, SIZES).held_bytes == 0, "images alone"


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
    assert what_is_kept(Kept(31, "fixed")) == "features after all layers"
    assert what_is_kept(Kept(24, "epoch")) == "features before block5 of each epoch's views"
