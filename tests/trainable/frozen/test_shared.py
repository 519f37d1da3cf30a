"""What one process shares: only what may be held is held and only what is to be kept is kept; little is read ahead."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.bench import Bench
from trainable.config import Sharing, TrialConfig
from trainable.frozen.reference import Batches, Plain, Work
from trainable.frozen.shared import FromStore, Shared
from trainable.hardware.device import Device
from trainable.network.model import build_model

TRAINING, VALIDATION = 24, 8
HEAD = TrialConfig(strategy="head", head="16", augmentation="none", batch_size=5)
EVERYTHING = frozenset({"0 fixed", "10 fixed", "17 fixed", "24 fixed", "31 fixed"})


def shared(bench: Bench, folder: Path, sharing: Sharing, **changed: object) -> Shared:
    """As a process has it whose store is in `folder`."""
    facts = {"sharing": sharing, "store": folder / "store", **changed}
    return Shared(bench.run.model_copy(update=facts), bench.data, bench.backbone)


def source(bench: Bench, by: Shared, **settings: object) -> FromStore:
    """Where a trial with these settings has its features from."""
    config = HEAD.model_copy(update=settings)
    return FromStore(Plain(config, by.run, by.data, build_model(config, bench.backbone)), by)


@pytest.mark.parametrize("made_on", ["device", "host"])
@pytest.mark.parametrize("resident", [True, False])
def test_images_lie_on_the_device_where_views_are_made_there_and_it_may_hold_anything(
    bench: Bench, tmp_path: Path, resident: bool, made_on: str
) -> None:
    """The pixels are those that Pillow gives."""
    sharing = Sharing(kept=frozenset(), resident=resident)
    by, images = shared(bench, tmp_path, sharing, views_made_on=made_on), bench.data.validation
    assert by.holds is resident
    held = by.held_pixels(images)
    if resident and made_on == "device":
        assert held is not None
        for file, pixels in zip(images.files, held, strict=True):
            picture = (
                Image.open(images.folder / file)
                .convert("RGB")
                .resize((32, 32), Image.Resampling.BILINEAR)
            )
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(picture))
    else:
        assert held is None
    by.drop_resident()
    assert by.held_pixels(images) is None and not by.holds


def test_a_trial_that_freezes_nothing_and_a_device_that_is_given_back_hold_no_features(
    bench: Bench, tmp_path: Path
) -> None:
    by = shared(bench, tmp_path, Sharing(kept=frozenset(), resident=True))
    full, head = source(bench, by, strategy="full"), source(bench, by)
    assert full.resident_training(1, Work()) is None and full.resident_validation(Work()) is None
    assert head.resident_validation(Work()) is not None
    by.drop_resident()
    assert head.resident_training(1, Work()) is None and head.resident_validation(Work()) is None


def test_features_that_are_not_to_be_kept_are_computed_and_leave_nothing_on_the_disk(
    bench: Bench, tmp_path: Path
) -> None:
    by = shared(bench, tmp_path, Sharing(kept=frozenset({"31 fixed"})))
    work = Work()
    list(source(bench, by, strategy="block5").validation(work))
    assert (work.frozen_images, work.shared_images) == (VALIDATION, 0)
    assert not (tmp_path / "store").exists()
    list(source(bench, by).validation(work := Work()))
    assert (work.frozen_images, work.shared_images) == (VALIDATION, VALIDATION)


def features(batches: Batches) -> torch.Tensor:
    return torch.cat([hidden for _, hidden in batches])


def test_what_lies_on_the_device_is_what_the_plain_path_computes_and_is_computed_once(
    bench: Bench, tmp_path: Path
) -> None:
    """Of images some of which are mirrored."""
    by = shared(bench, tmp_path, Sharing(kept=frozenset(), resident=True))
    mirroring = source(bench, by, augmentation="flip")
    plain = features(mirroring.plain.training(1, range(TRAINING), Work()))
    for computed in (2 * TRAINING, 0):
        held = mirroring.resident_training(1, work := Work())
        assert held is not None and torch.equal(held.at(torch.arange(TRAINING)), plain)
        assert (work.frozen_images, work.shared_images) == (computed, TRAINING)


def test_the_next_epoch_lets_go_of_the_views_of_the_last_one_and_of_nothing_else(
    bench: Bench, tmp_path: Path
) -> None:
    """So they may be evicted, while what comes again in every epoch stays mapped."""
    by = shared(bench, tmp_path, Sharing(kept=frozenset({"31 epoch", "31 fixed"})))
    jittering, order = source(bench, by, augmentation="flip_jitter"), range(TRAINING)
    features(jittering.validation(Work()))
    fixed = set(by.shelves.open)
    mapped = []
    for epoch in (1, 2):
        plain = features(jittering.plain.training(epoch, order, Work()))
        assert torch.equal(features(jittering.training(epoch, order, Work())), plain)
        mapped.append(set(by.shelves.open))
    assert [len(each) for each in mapped] == [len(fixed) + 3] * 2, "three chunks of training"
    assert set.intersection(*mapped) == fixed


class AtOnce:
    """A pool that has done what it is given when it takes it."""

    def submit(self, call: Callable[..., Any], *given: object) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*given))
        return done


def test_features_are_read_two_batches_ahead_and_no_more_of_an_epoch_lies_in_memory(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def at_once(count: int, name: str) -> Iterator[AtOnce]:
        yield AtOnce()

    read: list[int] = []
    buffer = Device.host_buffer

    def counted(self: Device, shape: tuple[int, ...], format: torch.dtype) -> torch.Tensor:
        read.append(shape[0])
        return buffer(self, shape, format)

    by = shared(bench, tmp_path, Sharing(kept=EVERYTHING))
    monkeypatch.setattr("trainable.frozen.shared.threads", at_once)
    batches = source(bench, by).training(1, range(TRAINING), Work())
    monkeypatch.setattr(Device, "host_buffer", counted)
    ahead = [len(read) - number for number, _ in enumerate(batches, start=1)]
    assert ahead == [2, 2, 2, 1, 0]
    assert read == [5, 5, 5, 5, 4]
