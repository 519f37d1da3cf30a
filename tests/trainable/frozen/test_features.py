"""Frozen features shared through the store: the same training as without, done once, whatever happens to the files."""

import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.bench import Bench, exhaust, results
from trainable.config import Sharing, Strategy, TrialConfig
from trainable.data import LabelledImages, open_training_data
from trainable.data.views import ORIGINAL, View, draws, look_all, normalise, statistics
from trainable.errors import RequestError
from trainable.fit import fit
from trainable.frozen.chunks import Look, chunk_name, chunk_size
from trainable.frozen.reference import ResidentFeatures, Work
from trainable.frozen.shared import Shared
from trainable.frozen.store import stored
from trainable.network.model import CUTS, feature_layers, forward_frozen, multiply_adds
from trainable.records.rows import Row

WITH_FROZEN = sorted(set(CUTS.values()) - {0})
CUTS_AND_FAMILIES = {f"{cut} {family}" for cut in WITH_FROZEN for family in ("fixed", "epoch")}
ALL = frozenset({"0 fixed"} | CUTS_AND_FAMILIES)
TRAINING, VALIDATION = 24, 8
SMALL = TrialConfig(strategy="block5", head="16", batch_size=5, lr=1e-3)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def sharing(bench: Bench, store: Path) -> Bench:
    """The bench with a store of its own that keeps everything."""
    return sharing_of(bench, store)


def sharing_of(bench: Bench, store: Path, **changed: object) -> Bench:
    facts = {"sharing": Sharing(kept=ALL), "store": store, **changed}
    return replace(bench, run=bench.run.model_copy(update=facts))


def train(bench: Bench, config: TrialConfig, name: str, by: Shared | None = None) -> list[Row]:
    """Every row of a trial, with its record under `name`."""
    record = bench.record(name)
    rows, _ = exhaust(fit(config, bench.run, bench.data, bench.backbone, record, by))
    return rows


def outcome(
    bench: Bench, rows: list[Row], name: str
) -> tuple[list[tuple[float, ...]], bytes, object]:
    """What must be equal: results, the last weights, the best weights."""
    folder = bench.run.folder / "trials" / name
    (best,) = folder.glob("best-*.safetensors")
    state = bench_state(folder / "last.pt")
    return results(rows), best.read_bytes(), state


def bench_state(path: Path) -> object:
    state = torch.load(path, weights_only=True)
    return {name: value.tolist() for name, value in state["trained"].items()}


def original(images: LabelledImages) -> Look:
    return Look((ORIGINAL,) * len(images), "fixed")


def again(bench: Bench) -> Bench:
    """As another process sees the same images and store."""
    return replace(bench, data=open_training_data(bench.split, bench.run.images, 32))


def shared(bench: Bench) -> Shared:
    return Shared(bench.run, bench.data, bench.backbone)


# ---------------------------------------------------------------- the same training


@pytest.mark.parametrize(
    ("strategy", "augmentation", "optimizer"),
    [
        # each two of the three together once
        ("head", "none", "adam"),
        ("head", "flip", "sgd"),
        ("head", "flip_jitter", "adam"),
        ("block5", "none", "sgd"),
        ("block5", "flip", "adam"),
        ("block5", "flip_jitter", "sgd"),
        *((s, "flip", "adamw") for s in get_args(Strategy) if s not in ("head", "block5", "full")),
        ("full", "flip_jitter", "adam"),
    ],
)
def test_sharing_changes_no_bit(
    bench: Bench, store: Path, strategy: str, augmentation: str, optimizer: str
) -> None:
    sharing = sharing_of(bench, store, epochs=2)  # in the second, views are others
    settings = {"strategy": strategy, "augmentation": augmentation, "optimizer": optimizer}
    config = SMALL.model_copy(update=settings)
    plain = outcome(sharing, train(sharing, config, "plain"), "plain")
    by = shared(sharing)
    for name in ("cold", "warm"):
        rows = train(sharing, config, name, by)
        assert outcome(sharing, rows, name) == plain
    if strategy != "full":
        assert sum(row.frozen_images for row in rows) == 0, "the warm store had everything"
        assert all(row.shared_images == TRAINING + VALIDATION for row in rows)


@pytest.mark.parametrize("augmentation", ["none", "flip", "flip_jitter"])
def test_features_held_in_the_devices_memory_change_no_bit(
    bench: Bench, store: Path, augmentation: str
) -> None:
    """Here the device is the CPU; a GPU takes the same lines."""
    resident = sharing_of(bench, store, sharing=Sharing(kept=ALL, resident=True))
    config = SMALL.model_copy(update={"augmentation": augmentation})
    plain = outcome(resident, train(resident, config, "plain"), "plain")
    by = shared(resident)
    for name in ("cold", "warm"):
        assert outcome(resident, train(resident, config, name, by), name) == plain


@pytest.mark.parametrize("batch_size", [1, 7, 23, 24, 100])
@pytest.mark.parametrize("strategy", ["head", "block5"])
def test_a_last_batch_of_any_size_changes_no_bit(
    bench: Bench, store: Path, strategy: str, batch_size: int
) -> None:
    once = sharing_of(bench, store, epochs=1)
    config = SMALL.model_copy(update={"strategy": strategy, "batch_size": batch_size})
    plain = outcome(once, train(once, config, "plain"), "plain")
    assert outcome(once, train(once, config, "cold", shared(once)), "cold") == plain


@pytest.mark.parametrize("changed", [{"workers": 3}, {"threads": 2}])
def test_workers_and_threads_change_no_bit_beside_the_plain_path(
    bench: Bench, store: Path, changed: dict[str, int]
) -> None:
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    both = sharing_of(bench, store, **changed)
    try:
        plain = outcome(both, train(both, config, "plain"), "plain")
        assert outcome(both, train(both, config, "cold", shared(both)), "cold") == plain
    finally:
        torch.set_num_threads(1)


def test_rounded_features_are_the_same_in_both_paths_and_differ_from_unrounded_ones(
    bench: Bench, store: Path
) -> None:
    rounded = sharing_of(bench, store, store_format="float16")
    for strategy in (
        "block5",
        "head",
    ):  # the second finds the first one's chunks, and may not build on them
        config = SMALL.model_copy(update={"strategy": strategy})
        plain = outcome(rounded, train(rounded, config, f"{strategy}-p"), f"{strategy}-p")
        by = shared(rounded)
        found = outcome(rounded, train(rounded, config, f"{strategy}-s", by), f"{strategy}-s")
        assert found == plain
        assert found[0] != results(train(bench, config, f"{strategy}-exact"))


def test_a_pool_of_views_repeats_itself_in_both_paths(sharing: Bench) -> None:
    settings = {"augmentation": "flip_jitter", "views": 2, "strategy": "head"}
    config = SMALL.model_copy(update=settings)
    plain = train(sharing, config, "plain")
    rows = train(sharing, config, "cold", shared(sharing))
    assert results(rows) == results(plain)
    assert [row.frozen_images for row in rows] == [TRAINING + VALIDATION, TRAINING, 0]
    endless = train(sharing, config.model_copy(update={"views": None}), "endless")
    assert results(endless)[:2] == results(rows)[:2] and results(endless)[2] != results(rows)[2]


# ---------------------------------------------------------------- done once


def test_each_view_goes_through_the_frozen_layers_once(sharing: Bench) -> None:
    by = shared(sharing)

    def frozen(config: TrialConfig, name: str) -> list[int]:
        return [row.frozen_images for row in train(sharing, config, name, by)]

    none, flip, jitter = (
        SMALL.model_copy(update={"augmentation": a}) for a in ("none", "flip", "flip_jitter")
    )
    assert frozen(none, "none") == [TRAINING + VALIDATION, 0, 0]
    assert frozen(flip, "flip") == [TRAINING, 0, 0], "the mirrored ones alone"
    assert frozen(jitter, "jitter") == [TRAINING] * 3
    assert frozen(jitter.model_copy(update={"lr": 1e-4}), "jitter2") == [0, 0, 0]


def test_the_head_goes_on_from_where_block5_begins(sharing: Bench) -> None:
    by = shared(sharing)
    whole = multiply_adds(sharing.run.width, 32, 0, CUTS["head"]) * (TRAINING + VALIDATION)
    done = [
        sum(row.frozen_multiply_adds for row in train(sharing, config, config.strategy, by))
        for config in (SMALL, SMALL.model_copy(update={"strategy": "head"}))
    ]
    assert sum(done) == whole and min(done) > 0


def test_what_was_done_and_what_was_saved_is_what_the_plain_path_does(sharing: Bench) -> None:
    config = SMALL.model_copy(update={"augmentation": "flip"})
    plain = train(sharing, config, "plain")
    rows = train(sharing, config, "cold", shared(sharing))
    for row, other in zip(rows, plain, strict=True):
        assert row.frozen_multiply_adds + row.saved_multiply_adds == other.frozen_multiply_adds
        assert other.saved_multiply_adds == other.shared_images == 0


def test_two_trials_that_start_together_compute_each_chunk_once_between_them(
    sharing: Bench,
) -> None:
    both = {24: shared(sharing), 31: shared(again(sharing))}
    work = {cut: Work() for cut in both}
    start = threading.Barrier(2)

    def fill(cut: int) -> None:
        start.wait()
        for part in (both[cut].data.training, both[cut].data.validation):
            seen = both[cut].upcoming.original(part)
            both[cut].mapped(part, seen, cut, work[cut])

    for by in both.values():
        by.shelves.claims(24)
        for cut in (0, *WITH_FROZEN):
            by.shelves.shelf(cut)
    threads = [threading.Thread(target=fill, args=(cut,)) for cut in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for by in both.values():
        by.close()  # what lies on the way is written behind
    images = TRAINING + VALIDATION
    whole = multiply_adds(sharing.run.width, 32, 0, CUTS["head"]) * images
    assert sum(each.frozen_multiply_adds for each in work.values()) == whole
    chunks = [each.path for each in stored(sharing.run.store / "chunks")]  # type: ignore[operator]
    assert len({path.name for path in chunks}) == 4, "three chunks of training, one of validation"
    assert len(chunks) == 4 * (1 + len(WITH_FROZEN))
    assert not [path for path in chunks if path.suffix]


def test_a_trial_computes_every_other_chunk_before_it_waits_for_one(sharing: Bench) -> None:
    by, images = shared(sharing), sharing.data.training
    look = original(images)
    size = chunk_size(len(images))
    names = [chunk_name(images, look, range(s, s + size)) for s in range(0, len(images), size)]
    shelf, work = by.shelves.claims(24), Work()
    for cut in (0, 10, 17, 24):
        by.shelves.shelf(cut)
    with shelf.claim(names[0]):
        seen = by.upcoming.original(images)
        thread = threading.Thread(target=by.mapped, args=(images, seen, 24, work), daemon=True)
        thread.start()
        while (
            not all(by.shelves.shelf(24).has(name) for name in names[1:]) or not work.waited_seconds
        ):
            assert thread.is_alive()
        assert not by.shelves.shelf(24).has(names[0])
    thread.join(30)
    assert not thread.is_alive() and by.shelves.shelf(24).has(names[0])
    assert work.frozen_images == len(images)


# ---------------------------------------------------------------- what can go wrong


@pytest.fixture
def filled(sharing: Bench) -> tuple[Bench, list[Row]]:
    """A store that a trial has filled, and the rows of that trial."""
    rows = train(sharing, SMALL, "first", by := shared(sharing))
    by.close()
    return sharing, rows


def test_a_damaged_store_is_mended(filled: tuple[Bench, list[Row]]) -> None:
    bench, rows = filled
    chunks = stored(bench.run.store / "chunks")  # type: ignore[operator]
    for number, chunk in enumerate(chunks):
        content = bytearray(chunk.path.read_bytes())
        content[number] ^= 255
        chunk.path.write_bytes(content[: len(content) - 100 * (number % 2)])
    other = again(bench)
    mended = train(other, SMALL, "again", shared(other))
    assert results(mended) == results(rows)
    assert sum(row.frozen_images for row in mended) == TRAINING + VALIDATION


def test_another_sweep_on_the_same_images_finds_everything(
    filled: tuple[Bench, list[Row]], tmp_path: Path
) -> None:
    bench, rows = filled
    (tmp_path / "second").mkdir()
    other = again(bench)
    second = replace(other, run=bench.run.model_copy(update={"folder": tmp_path / "second"}))
    found = train(second, SMALL, "again", shared(second))
    assert results(found) == results(rows)
    assert sum(row.frozen_images for row in found) == 0


def test_other_weights_find_nothing(filled: tuple[Bench, list[Row]]) -> None:
    bench, rows = filled
    other = replace(
        bench,
        backbone=replace(
            bench.backbone,
            features={name: value * 1.01 for name, value in bench.backbone.features.items()},
        ),
    )
    found = train(other, SMALL, "again", shared(other))
    assert results(found) == results(train(other, SMALL, "plain")) != results(rows)


def test_an_image_that_changes_under_its_name_is_refused_by_name(
    sharing: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for file in sharing.run.images.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = open_training_data(sharing.split, folder, 32)
    changed, other = data.training.files[3], data.training.files[4]
    (folder / changed).write_bytes((folder / other).read_bytes())
    moved = replace(sharing, data=data)
    for by in (None, shared(moved)):
        with pytest.raises(RequestError, match=f"{changed} has changed"):
            train(moved, SMALL, f"trial-{by is None}", by)


def test_a_store_that_is_deleted_underneath_changes_no_bit(sharing: Bench, store: Path) -> None:
    """For a trial under way, with its chunks mapped, and for the next one."""
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    plain = results(train(sharing, config, "plain"))
    by = shared(sharing)
    record = sharing.record("under-way")
    under_way = fit(config, sharing.run, sharing.data, sharing.backbone, record, by)
    first = next(under_way)
    shutil.rmtree(store)
    rows, _ = exhaust(under_way)
    assert results([first, *rows]) == plain
    assert results(train(sharing, config, "next", by)) == plain


@pytest.mark.parametrize("trouble", ["no folder", "no room"])
def test_without_a_store_a_trial_goes_on_and_says_why_once(
    bench: Bench, tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    if trouble == "no folder":
        (tmp_path / "file").write_text("")
        hindered = sharing_of(bench, tmp_path / "file" / "store")
    else:
        kept = Sharing(kept=ALL, limit_bytes=20_000)
        hindered = sharing_of(bench, tmp_path / "store", sharing=kept)
    by = shared(hindered)
    plain = results(train(bench, SMALL, "plain"))
    assert results(train(hindered, SMALL, "one", by)) == plain
    assert results(train(hindered, SMALL, "two", by)) == plain
    assert by.problem
    assert caplog.text.count("no longer shared") == 1


def test_an_epochs_own_views_can_be_evicted_once_it_is_over(bench: Bench, store: Path) -> None:
    """Room for the validation images and one epoch's view, not for three."""
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    kept = frozenset({"24 fixed", "24 epoch"})
    wide = sharing_of(bench, store / "wide", sharing=Sharing(kept=kept))
    rows = train(wide, config, "wide", by := shared(wide))
    by.close()
    sizes = [each.bytes for each in stored(store / "wide" / "chunks")]
    limit = sum(sizes) * 6 // 10
    tight = sharing_of(bench, store / "tight", sharing=Sharing(kept=kept, limit_bytes=limit))
    by = shared(tight)
    assert results(train(tight, config, "tight", by)) == results(rows)
    by.close()
    assert not by.problem
    assert sum(each.bytes for each in stored(store / "tight" / "chunks")) <= limit


# ---------------------------------------------------------------- as on a GPU, without one


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices, and those that bring anything to the host."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        found = func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs, found))
        devices = {each.device.type for each in leaves if isinstance(each, torch.Tensor)}
        assert len(devices) < 2, f"{func} mixes {devices}"
        return found


@pytest.fixture
def as_on_a_gpu() -> Iterator[None]:
    """Tensors without values on a device that need not be there."""
    statistics.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield
    statistics.cache_clear()


def on_gpu(*shape: int, format: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=format, device="cuda")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("rounded", [False, True])
def test_features_in_the_gpus_memory_are_gathered_there(rounded: bool) -> None:
    table = on_gpu(20, 7, 7, 25, format=torch.float16 if rounded else torch.bfloat16)
    held = ResidentFeatures(table, on_gpu(10, format=torch.int64), rounded)
    positions = on_gpu(4, format=torch.int64)
    with OneDevice():
        hidden = held.at(positions)
        batches = list(held.in_order(4))
    assert hidden.shape == (4, 25, 7, 7) and hidden.device.type == "cuda"
    assert hidden.dtype is (torch.float32 if rounded else torch.bfloat16)
    assert hidden.is_contiguous(memory_format=torch.channels_last)
    assert [len(batch) for _, batch in batches] == [4, 4, 2]


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("images", [1, 6])
def test_views_and_frozen_layers_stay_on_the_gpu(images: int) -> None:
    layers = feature_layers(0.05)
    shapes = {name: value.shape for name, value in layers.state_dict().items()}
    state = {name: on_gpu(*shape, format=torch.float32) for name, shape in shapes.items()}
    layers.load_state_dict(state, assign=True)
    pixels = on_gpu(images, 3, 32, 32, format=torch.uint8)
    seen = draws([View(jitter=((1, 1.1), (0, 0.9), (2, 1.0)))] * images).to(pixels.device)
    normalise(pixels)  # the first time brings mean and deviation there
    with OneDevice():
        hidden = forward_frozen(layers, normalise(look_all(pixels, seen.between(0, images))))
    assert hidden.shape[0] == images and hidden.device.type == "cuda"


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_watch_over_devices_sees_what_it_should() -> None:
    table = on_gpu(20, 7, 7, 25, format=torch.bfloat16)
    for wrong in (
        lambda: ResidentFeatures(table, torch.arange(10)).at(torch.arange(3)),
        lambda: table.cpu(),
        lambda: table.sum().item(),
    ):
        with OneDevice(), pytest.raises(AssertionError):
            wrong()
