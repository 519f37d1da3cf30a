"""The training step as a GPU takes it, on the CPU in its place: nothing asks the host, nothing a GPU can't index."""

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.frozen.rates import RateProbe, measure_rates
from tests.support.bench import Bench, exhaust, results
from trainable import captured_steps as graph_test
from trainable.config import RunSettings, Sharing, TrialConfig
from trainable.fit import fit, predict
from trainable.frozen import stages
from trainable.frozen.reference import Plain, ResidentFeatures, Work, evaluation_batches
from trainable.frozen.shared import FromStore, Shared
from trainable.hardware.device import CaptureFailed, Device
from trainable.network.model import build_model
from trainable.step import TrainingSteps

SMALL = TrialConfig(strategy="block5", head="16", batch_size=5, lr=1e-3, augmentation="flip")
KEPT = frozenset(f"{cut} {family}" for cut in (0, 24, 31) for family in ("fixed", "epoch"))
UNINDEXABLE = (torch.uint16, torch.uint32, torch.uint64)


class Watch(TorchDispatchMode):
    """Sees every operation of its thread, and what each gives."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.before(func)
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor):
                assert each.dtype not in UNINDEXABLE, f"{func} gives {each.dtype}"
        return found

    def before(self, func: Any) -> None:
        """What must not happen."""


class NoQuestion(Watch):
    """Refuses whatever a GPU would have to be waited for."""

    def before(self, func: Any) -> None:
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        ), f"{func} asks the device for a number"


def on(bench: Bench, tmp_path: Path, **changed: object) -> Bench:
    facts = {"sharing": Sharing(kept=KEPT, resident=True), "store": tmp_path / "store", **changed}
    return replace(bench, run=bench.run.model_copy(update=facts))


def train(bench: Bench, config: TrialConfig, by: Shared | None = None, name: str = "t") -> Any:
    record = bench.record(name)
    rows, _ = exhaust(fit(config, bench.run, bench.data, bench.backbone, record, by))
    state = torch.load(record.last, weights_only=True)
    return results(rows), {key: value.tolist() for key, value in state["trained"].items()}


def steps_of(bench: Bench, config: TrialConfig) -> tuple[TrainingSteps, FromStore]:
    torch.manual_seed(0)
    model = build_model(config, bench.backbone)
    steps = TrainingSteps(config, bench.run, model, bench.data.training.labels)
    shared = Shared(bench.run, bench.data, bench.backbone)
    plain = Plain(config, bench.run, bench.data, model, shared.held_pixels)
    return steps, FromStore(plain, shared)


# ---------------------------------------------------------------- as a GPU would have it


@pytest.mark.parametrize(
    ("resident", "augmentation"),
    [(True, "flip_jitter"), (True, "flip"), (False, "flip_jitter"), (None, "flip_jitter")],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_no_tensor_has_a_type_that_a_gpu_can_not_index(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    resident: bool | None,
    augmentation: str,
) -> None:
    """In a whole trial as on a GPU: filling by its stages' threads, training, validation, and the test's evaluation."""
    monkeypatch.setattr(stages, "thread_context", Watch)
    sharing = None if resident is None else Sharing(kept=KEPT, resident=resident)
    settings = {"precision": precision, "sharing": sharing, "epochs": 1, "views_made_on": "device"}
    here = on(bench, tmp_path, **settings)
    config = SMALL.model_copy(update={"augmentation": augmentation})
    with Watch():
        by = Shared(here.run, here.data, here.backbone) if sharing else None
        train(here, config, by, "cold")
        if resident is False:  # read from the disk
            train(here, config, by, "warm")
        model = build_model(config, here.backbone)
        predict(model, evaluation_batches(model, here.run, here.data.validation), here.run)


def test_nor_has_any_that_the_rates_are_measured_with(bench: Bench, tmp_path: Path) -> None:
    with Watch():
        for precision in ("float32", "bfloat16"):
            probe = RateProbe((24,), bench.data.training, 1, "cpu", precision, None, tmp_path)
            measure_rates(bench.backbone, probe)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_steady_epoch_asks_the_device_for_no_number(
    bench: Bench, tmp_path: Path, optimizer: str
) -> None:
    here = on(bench, tmp_path)
    steps, frozen = steps_of(here, SMALL.model_copy(update={"optimizer": optimizer}))
    steps.epoch(frozen, 1, Work())
    frozen.resident_training(2, Work())
    with NoQuestion():
        steps.epoch(frozen, 2, Work())


@pytest.mark.parametrize("strategy", ["head", "block5"])
def test_the_forward_step_on_a_gpu_mixes_no_devices(bench: Bench, strategy: str) -> None:
    """As torch would say it there: with tensors that have a device, but no values (autocast needs a real GPU)."""
    run = bench.run.model_copy(update={"device": "cuda"})
    config = SMALL.model_copy(update={"strategy": strategy})
    with FakeTensorMode(allow_non_fake_inputs=False), torch.device("cuda"):
        shapes = {name: value.shape for name, value in bench.backbone.features.items()}
        features = {name: torch.empty(shape) for name, shape in shapes.items()}
        model = build_model(config, replace(bench.backbone, features=features))
        steps = TrainingSteps(config, run, model, torch.empty(24, device="cpu"))
        side = 1 if strategy == "head" else 2
        channels = bench.backbone.features["28.bias"].numel()
        table = torch.empty(48, side, side, channels)
        held = ResidentFeatures(table, torch.zeros(24, dtype=torch.int64))
        losses, hits = steps._forward(held.at, 5)
        assert losses.device.type == hits.device.type == "cuda"
        assert losses.dtype is torch.float32 and losses.shape == hits.shape == (5,)


# ---------------------------------------------------------------- captured or not


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("augmentation", ["flip", "flip_jitter"])
def test_a_step_made_to_be_captured_gives_the_same_bits(
    bench: Bench, tmp_path: Path, resident: bool, augmentation: str
) -> None:
    """On a CPU nothing is captured, but the step reads and writes the same tensors every time."""
    config = SMALL.model_copy(update={"augmentation": augmentation})
    sharing = Sharing(kept=KEPT, resident=resident)
    plain = train(bench, config, name="plain")
    here = on(bench, tmp_path, sharing=sharing, graphs=True)
    by = Shared(here.run, here.data, here.backbone)
    assert train(here, config, by, "captured") == plain


@pytest.mark.parametrize(("augmentation", "captures"), [("flip", 1), ("flip_jitter", 2)])
def test_a_trial_captures_its_step_once_and_once_more_where_each_epoch_has_a_table_of_its_own(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    augmentation: str,
    captures: int,
) -> None:
    """A capture waits for the device and runs three steps eagerly; 24 images in batches of 5 leave an odd one."""
    captured: list[Callable[[], None]] = []
    real = Device.replayed

    def count(device: Device, step: Callable[[], None]) -> Callable[[], None]:
        captured.append(step)
        return real(device, step)

    monkeypatch.setattr(Device, "replayed", count)
    sharing = Sharing(kept=KEPT, resident=True)
    here = on(bench, tmp_path, sharing=sharing, graphs=True, epochs=5)
    by = Shared(here.run, here.data, here.backbone)
    config = SMALL.model_copy(update={"augmentation": augmentation, "batch_size": 5})
    train(here, config, by, "captured")
    assert len(captured) == captures


def test_a_run_asks_once_whether_replayed_steps_train_as_eager_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert graph_test.problem("cpu", "float32") == ""

    def stale(device: Device, step: Callable[[], None]) -> Callable[[], None]:
        """As a graph would that was captured with the wrong tensors: it trains on, on the first batch."""
        done: list[None] = []

        def replay() -> None:
            if len(done) < 2:
                step()
            done.append(None)

        return replay

    monkeypatch.setattr(Device, "replayed", stale)
    assert "with eager steps" in graph_test.problem("cpu", "float32")

    def broken(device: Device, step: Callable[[], None]) -> Callable[[], None]:
        raise CaptureFailed("operation not permitted when stream is capturing")

    monkeypatch.setattr(Device, "replayed", broken)
    assert "not permitted" in graph_test.problem("cpu", "float32")


# ---------------------------------------------------------------- state


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_trial_goes_on_from_its_state_as_if_it_had_not_stopped(
    bench: Bench, optimizer: str, precision: str
) -> None:
    config = SMALL.model_copy(
        update={"optimizer": optimizer, "schedule": "cosine", "schedule_epochs": 3}
    )
    run = bench.run.model_copy(update={"precision": precision})
    once = train(replace(bench, run=run), config, name="once")
    record = bench.record("twice")
    rows: list[Any] = []
    for epochs in (1, 3):
        part = run.model_copy(update={"epochs": epochs})
        more, _ = exhaust(fit(config, part, bench.data, bench.backbone, record))
        rows += more
    state = torch.load(record.last, weights_only=True)
    trained = {key: value.tolist() for key, value in state["trained"].items()}
    assert (results(rows), trained) == once


def test_a_state_holds_plain_rates_so_that_any_device_and_version_reads_it(bench: Bench) -> None:
    record = bench.record("t")
    config = SMALL.model_copy(update={"schedule": "cosine", "schedule_epochs": 3})
    rows, _ = exhaust(fit(config, bench.run, bench.data, bench.backbone, record))
    groups = torch.load(record.last, weights_only=True)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == [rows[-1].lr] * 2
    assert [group["capturable"] for group in groups] == [False] * 2


# ---------------------------------------------------------------- float16


def half_precision(bench: Bench) -> tuple[TrainingSteps, Plain]:
    run: RunSettings = bench.run.model_copy(update={"precision": "float16"})
    torch.manual_seed(0)
    model = build_model(SMALL, bench.backbone)
    return TrainingSteps(SMALL, run, model, bench.data.training.labels), Plain(
        SMALL, run, bench.data, model
    )


def test_a_step_whose_gradients_are_not_finite_is_skipped_counted_and_its_scale_halved(
    bench: Bench,
) -> None:
    steps, plain = half_precision(bench)
    assert steps._scaler is not None
    steps._scaler.load_state_dict({**steps._scaler.state_dict(), "scale": 2.0**40})
    before = {name: value.clone() for name, value in plain.model.trained().items()}
    steps.epoch(plain, 1, Work())
    sums, _ = steps.fetch(torch.zeros(1))
    assert sums.skipped_steps == 5, "24 images in batches of 5"
    assert all(torch.equal(before[name], value) for name, value in plain.model.trained().items())
    assert steps.state(1)["scaler"]["scale"] == 2.0**35


def test_what_was_skipped_stands_in_the_row_and_the_scale_in_the_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind: scaler(kind, init_scale=2.0**20))
    run = bench.run.model_copy(update={"precision": "float16"})
    record = bench.record("t")
    rows, _ = exhaust(fit(SMALL, run, bench.data, bench.backbone, record))
    assert rows[0].skipped_steps > 0 == rows[-1].skipped_steps
    assert record.rows() == rows
    assert torch.load(record.last, weights_only=True)["scaler"]["scale"] < 2.0**20


def test_training_in_float16_learns_as_in_float32(bench: Bench) -> None:
    config = SMALL.model_copy(update={"dropout": 0.0})
    exact, _ = bench.fit(config)
    half, _ = bench.fit(config, precision="float16")
    for one, other in zip(half, exact, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.02)
        assert one.train_loss != other.train_loss


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_after_a_skipped_first_step_training_begins_as_if_it_had_not_been(
    bench: Bench, optimizer: str
) -> None:
    """torch's fused SGD leaves its momentum uninitialised there; a skipped step must leave nothing."""
    config = SMALL.model_copy(update={"optimizer": optimizer, "dropout": 0.0, "momentum": 0.9})
    run = bench.run.model_copy(update={"precision": "float16"})

    def trained(skip_one: bool) -> list[Any]:
        torch.manual_seed(0)
        model = build_model(config, bench.backbone)
        steps = TrainingSteps(config, run, model, bench.data.training.labels)
        plain = Plain(config, run, bench.data, model)
        assert steps._scaler is not None
        if skip_one:
            forced = {**steps._scaler.state_dict(), "scale": 2.0**60}
            steps._scaler.load_state_dict(forced)
            steps.epoch(plain, 1, Work())
            assert steps.fetch(torch.zeros(1))[0].skipped_steps == 5
        steps._scaler.load_state_dict({**steps._scaler.state_dict(), "scale": 1024.0})
        steps.epoch(plain, 2, Work())
        return [value.tolist() for value in model.trained().values()]

    assert trained(True) == trained(False)


def test_memory_that_runs_out_before_a_capture_is_let_go_of(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that waits to be captured holds what it reads: nothing may hold the step."""
    here = on(bench, tmp_path, graphs=True)
    by = Shared(here.run, here.data, here.backbone)
    made: list[weakref.ref[TrainingSteps]] = []
    begin, update = TrainingSteps.__init__, TrainingSteps._update

    def remember(steps: TrainingSteps, *settings: Any) -> None:
        made.append(weakref.ref(steps))
        begin(steps, *settings)

    def full(steps: TrainingSteps, loss: Tensor) -> None:
        update(steps, loss)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TrainingSteps, "__init__", remember)
    monkeypatch.setattr(TrainingSteps, "_update", full)
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            next(fit(SMALL, here.run, here.data, here.backbone, here.record("t"), by))
        assert made[0]() is None
    finally:
        gc.enable()
