"""The training loop held against a plain one; a stopped, killed or damaged trial against one that never stopped."""

import logging
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from tests.support.bench import Bench, exhaust, make_bench, results
from tests.support.faces import Faces
from tests.support.project import ROOT
from tests.support.vgg import first_trained
from trainable import fit as fit_module
from trainable.config import Strategy, TrialConfig
from trainable.data import LabelledImages, TrainingData
from trainable.fit import fit
from trainable.metric import Metric, measure
from trainable.network.model import build_model
from trainable.records.files import write_json
from trainable.records.paths import StaleSession
from trainable.records.right import read_right
from trainable.records.rows import Row, Status, is_better
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord
from trainable.schedule import derive_seed, lr_factor
from trainable.step import TrainingSteps
from trainable.write_behind import Behind

SMALL = TrialConfig(head="16", lr=0.01, batch_size=10, dropout=0.2)
STILL = TrialConfig(head="linear", lr=1e-30, optimizer="sgd", momentum=0)  # learns nothing
COLUMNS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


# ---------------------------------------------------------------- the same as a plain loop


def pictures(images: LabelledImages) -> Tensor:
    """Every image as the reports' evaluation transform gives it."""
    pipeline = transforms.Compose(
        [
            transforms.Resize((images.image_size, images.image_size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return torch.stack([pipeline(Image.open(images.folder / file)) for file in images.files])


def torchvisions_vgg(config: TrialConfig, features: dict[str, Tensor]) -> torchvision.models.VGG:
    """torchvision's VGG class with a narrow backbone and a small head of its own, frozen below what trains."""
    channels = [
        features[f"{index}.bias"].numel()
        for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    ]
    layout: list[str | int] = list(channels)
    for place in (2, 5, 9, 13, 17):
        layout.insert(place, "M")
    with torch.device("meta"):
        model = torchvision.models.VGG(
            torchvision.models.vgg.make_layers(layout), init_weights=False
        )
    model.features.load_state_dict({n: v.clone() for n, v in features.items()}, assign=True)
    torch.manual_seed(derive_seed(config.seed, "initialisation"))
    inputs, hidden = channels[-1] * 49, int(config.head)
    model.classifier = nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(hidden, 1)
    )
    model.features[: first_trained(config.strategy)].requires_grad_(False)
    return model


def plain_optimizer(config: TrialConfig, model: torchvision.models.VGG) -> torch.optim.Optimizer:
    tuned = [p for p in model.features.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": list(model.classifier.parameters())}]
    if tuned:
        groups.append({"params": tuned, "lr": config.lr * config.backbone_lr_ratio})
    common: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": False,
        "foreach": False,
    }
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, **common)
        case "adamw":
            return torch.optim.AdamW(groups, **common)
        case "sgd":
            return torch.optim.SGD(groups, momentum=config.momentum, **common)


def plain_training(config: TrialConfig, bench: Bench) -> list[tuple[float, ...]]:
    """`COLUMNS` for each epoch, from a loop as in a tutorial."""
    model = torchvisions_vgg(config, bench.backbone.features)
    optimizer = plain_optimizer(config, model)
    data = bench.data
    images, labels = pictures(data.training), data.training.labels
    val_images, val_labels = pictures(data.validation), data.validation.labels
    share = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels.numpy())
    weigh = torch.tensor(share if config.class_weight == "balanced" else [1, 1]).float()
    table: list[tuple[float, ...]] = []
    steps_done = 0
    for epoch in range(1, bench.run.epochs + 1):
        generator = torch.Generator().manual_seed(derive_seed(config.seed, epoch, "order"))
        order = torch.randperm(len(images), generator=generator)
        torch.manual_seed(derive_seed(config.seed, epoch, "dropout"))
        model.train()
        loss_sum = correct = 0.0
        for batch in order.split(config.batch_size):
            logits = model(images[batch])[:, 0]
            loss = nn.BCEWithLogitsLoss(weight=weigh[labels[batch].long()])(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            if config.schedule == "cosine":
                steps_done += 1
                done = (
                    steps_done / len(order.split(config.batch_size)) / (config.schedule_epochs or 1)
                )
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            correct += ((logits.sigmoid() > 0.5) == labels[batch].bool()).sum().item()
        model.eval()
        with torch.no_grad():
            logits = model(val_images)[:, 0]
        accuracy = ((logits.sigmoid() > 0.5) == val_labels.bool()).float().mean().item()
        val_loss = nn.BCEWithLogitsLoss()(logits, val_labels).item()
        table.append((loss_sum / len(images), correct / len(images), val_loss, accuracy))
    return table


@pytest.mark.parametrize("strategy", ["head", "block5"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_trial_trains_as_a_plain_loop_around_torchvisions_model(
    bench: Bench, strategy: str, optimizer: str
) -> None:
    config = TrialConfig(
        strategy=strategy,
        optimizer=optimizer,
        head="8",
        lr=2e-3,
        backbone_lr_ratio=0.5,
        weight_decay=0.01,
        batch_size=10,
        dropout=0.4,
    )
    rows, outcome = bench.fit(config)
    assert outcome.status is Status.FINISHED
    ours = [tuple(getattr(row, column) for column in COLUMNS) for row in rows]
    assert np.array(ours) == pytest.approx(np.array(plain_training(config, bench)), abs=1e-5)
    assert len({row.train_loss for row in rows}) == 3


def test_the_rate_falls_from_step_to_step_of_the_training(bench: Bench) -> None:
    config = SMALL.model_copy(
        update={"schedule": "cosine", "schedule_epochs": 3, "optimizer": "sgd"}
    )
    rows, _ = bench.fit(config)
    witness = plain_training(config, bench)
    assert [row.train_loss for row in rows] == pytest.approx([row[0] for row in witness], abs=1e-5)


def only(images: LabelledImages, positions: list[int]) -> LabelledImages:
    """Some of `images`."""
    return LabelledImages(
        images.folder,
        tuple(images.files[i] for i in positions),
        images.labels[positions],
        images.image_size,
        tuple(images.digests[i] for i in positions),
    )


@pytest.fixture
def lopsided(bench: Bench) -> Bench:
    """Three smiles in four training images, so that class weights differ."""
    training = bench.data.training
    kept = [i for i in range(len(training)) if training.labels[i] == 1 or i % 3 == 0]
    fewer = only(training, kept)
    assert 0.6 < fewer.labels.mean() < 0.9
    return Bench(bench.run, TrainingData(fewer, bench.data.validation), bench.backbone, bench.split)


def test_balanced_classes_weigh_as_in_scikit_learn(lopsided: Bench) -> None:
    config = SMALL.model_copy(update={"class_weight": "balanced"})
    rows, _ = lopsided.fit(config)
    witness = plain_training(config, lopsided)
    assert [row.train_loss for row in rows] == pytest.approx([row[0] for row in witness], abs=1e-5)
    unweighted, _ = lopsided.fit(SMALL)
    assert abs(rows[0].train_loss - unweighted[0].train_loss) > 1e-3


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_a_mean_is_over_images_whatever_the_size_of_the_last_batch(
    bench: Bench, batch_size: int
) -> None:
    config = STILL.model_copy(update={"batch_size": batch_size})
    torch.manual_seed(derive_seed(config.seed, "initialisation"))
    logits = bench.predict(build_model(config, bench.backbone), bench.data.training)
    labels = bench.data.training.labels.numpy()
    (row,), _ = bench.fit(config, epochs=1)
    assert row.train_loss == pytest.approx(
        log_loss(labels, torch.sigmoid(logits.double())), rel=1e-5
    )
    assert row.train_accuracy == ((logits.numpy() > 0) == labels).mean()


def test_evaluation_is_clean_under_augmentation_and_dropout(bench: Bench) -> None:
    plain = STILL.model_copy(update={"head": "8", "dropout": 0.0})
    noisy = plain.model_copy(update={"augmentation": "flip_jitter", "dropout": 0.7})
    (one, *_), _ = bench.fit(plain)
    (other, later, *_), _ = bench.fit(noisy)
    assert other.val_loss == one.val_loss == later.val_loss
    assert len({one.train_loss, other.train_loss, later.train_loss}) == 3


def test_a_row_tells_of_the_frozen_work_that_was_done_and_of_the_time_it_took(bench: Bench) -> None:
    """Multiply-adds are half of what torch counts; nothing is shared here, so nothing is saved."""
    model = build_model(SMALL, bench.backbone)
    with FlopCounterMode(display=False) as counter:
        model.prefix(torch.zeros(2, 3, 32, 32))
    images = len(bench.data.training) + len(bench.data.validation)
    started = time.monotonic()
    rows, _ = bench.fit(SMALL)
    passed = time.monotonic() - started
    for row in rows:
        assert row.frozen_images == images
        assert row.frozen_multiply_adds == images * counter.get_total_flops() / 2 / 2
        assert (row.saved_multiply_adds, row.shared_images) == (0, 0)
        assert row.images_per_second * row.seconds == pytest.approx(len(bench.data.training))
        assert row.frozen_seconds <= row.seconds
    assert sum(row.seconds for row in rows) <= passed


def test_which_images_were_right_is_on_record_as_the_accuracy_has_it(bench: Bench) -> None:
    record = bench.record("right")
    rows, _ = bench.fit(SMALL, record)
    right = read_right(record.right, len(rows), len(bench.data.validation))
    assert right is not None
    assert right.mean(axis=1).tolist() == [row.val_accuracy for row in rows]
    best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
    predictions = record.predictions(best.epoch)
    expected = (predictions["logit"] > 0) == bench.data.validation.labels.bool().numpy()
    assert right[best.epoch - 1].tolist() == expected.tolist()


def test_the_backbones_share_of_the_rate_is_applied(bench: Bench) -> None:
    def moved(ratio: float) -> dict[str, Tensor]:
        """How far one plain step of SGD over all images moves each parameter."""
        config = TrialConfig(
            optimizer="sgd",
            momentum=0,
            lr=0.1,
            backbone_lr_ratio=ratio,
            head="8",
            dropout=0,
            batch_size=24,
        )
        torch.manual_seed(derive_seed(config.seed, "initialisation"))
        start = build_model(config, bench.backbone).trained_copy()
        record = bench.record(config.trial_id)
        bench.fit(config, record, epochs=1)
        end = record.load_best(record.rows()[0]).weights
        return {name: end[name] - start[name] for name in start}

    full, tenth = moved(1.0), moved(0.1)
    for name, step in full.items():
        share = 0.1 if name.startswith("features") else 1.0
        assert torch.allclose(tenth[name], share * step, atol=1e-7, rtol=1e-3), name
        assert step.abs().max() > 1e-6


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_the_frozen_backbone_that_trials_share_stays_to_the_last_bit(
    bench: Bench, strategy: str
) -> None:
    digest = bench.backbone.digest()
    config = SMALL.model_copy(update={"strategy": strategy, "weight_decay": 0.1})
    record = bench.record(config.trial_id)
    bench.fit(config, record, epochs=1)
    assert bench.backbone.digest() == digest
    first = first_trained(strategy)
    kept = {name for name in bench.backbone.features if int(name.split(".")[0]) >= first}
    weights = record.load_best(record.rows()[0]).weights
    assert {name[9:] for name in weights if name.startswith("features.")} == kept
    for name in kept:
        assert not torch.equal(weights[f"features.{name}"], bench.backbone.features[name])


# ---------------------------------------------------------------- the learning rate


@pytest.mark.parametrize("epochs", [1, 4, 10])
def test_a_cosine_is_torchs(epochs: int) -> None:
    config = TrialConfig(schedule="cosine", schedule_epochs=epochs)
    steps = 7
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    witness = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=0.01)
    for step in range(1, epochs * steps + 1):
        optimizer.step()
        witness.step()
        assert lr_factor(config, step / steps) == pytest.approx(witness.get_last_lr()[0], abs=1e-9)
    assert lr_factor(config, epochs + 3.5) == pytest.approx(0.01)


def test_a_warm_up_rises_as_torchs_linear_one_and_the_cosine_follows() -> None:
    steps, warmup, epochs = 10, 2, 6
    config = TrialConfig(schedule="cosine", schedule_epochs=epochs, warmup_epochs=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-9, 1.0, warmup * steps)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, (epochs - warmup) * steps, 0.01)
    for step in range(1, epochs * steps + 1):
        optimizer.step()
        (rise if step <= warmup * steps else fall).step()
        found = lr_factor(config, step / steps)
        assert found == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)


@given(st.floats(0, 200), st.floats(0, 20), st.integers(1, 100))
def test_a_rate_is_never_above_its_base_nor_negative(
    done: float, warmup: float, epochs: int
) -> None:
    for schedule in ("constant", "cosine"):
        config = TrialConfig(schedule=schedule, schedule_epochs=epochs, warmup_epochs=warmup)
        assert 0 <= lr_factor(config, done) <= 1
        if done >= warmup and schedule == "constant":
            assert lr_factor(config, done) == 1


def test_the_rate_on_record_is_the_heads_at_the_last_step_of_the_epoch(bench: Bench) -> None:
    config = TrialConfig(
        head="8",
        lr=0.1,
        backbone_lr_ratio=0.01,
        schedule="cosine",
        schedule_epochs=3,
        batch_size=10,
    )
    rows, _ = bench.fit(config, epochs=4)
    expected = [0.1 * lr_factor(config, epoch) for epoch in (1, 2, 3, 4)]
    assert [row.lr for row in rows] == pytest.approx(expected)
    assert rows[2].lr == rows[3].lr == pytest.approx(0.001)


def test_fewer_epochs_are_the_beginning_of_more(bench: Bench) -> None:
    config = SMALL.model_copy(
        update={
            "schedule": "cosine",
            "schedule_epochs": 4,
            "warmup_epochs": 0.5,
            "augmentation": "flip",
        }
    )
    short, _ = bench.fit(config, epochs=2)
    long, _ = bench.fit(config, epochs=4)
    assert results(short) == results(long)[:2]


# ---------------------------------------------------------------- draws


def test_a_trial_depends_on_its_settings_alone(bench: Bench) -> None:
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    rows, _ = bench.fit(config)
    torch.manual_seed(99)
    assert results(bench.fit(config)[0]) == results(rows)
    assert results(bench.fit(config, workers=4)[0]) == results(rows)


@pytest.mark.parametrize("seed", ["seed", "augmentation_seed"])
def test_another_seed_is_another_trial(bench: Bench, seed: str) -> None:
    config = SMALL.model_copy(update={"augmentation": "flip_jitter"})
    one, _ = bench.fit(config)
    other, _ = bench.fit(config.model_copy(update={seed: 1}))
    assert all(a.train_loss != b.train_loss for a, b in zip(one, other, strict=True))


def test_seeds_of_different_places_differ() -> None:
    places = [(seed, epoch, name) for seed in range(20) for epoch in range(20) for name in "ab"]
    seeds = {derive_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_it_works_without_a_record(bench: Bench) -> None:
    epochs = [row.epoch for row in fit(SMALL, bench.run, bench.data, bench.backbone)]
    assert epochs == [1, 2, 3]
    assert list(bench.run.folder.iterdir()) == []


def test_it_learns_what_can_be_seen(bench: Bench) -> None:
    rows, _ = bench.fit(SMALL, epochs=8)
    assert rows[-1].train_loss < 0.8 * rows[0].train_loss
    assert max(row.val_auc for row in rows) > 0.9


# ---------------------------------------------------------------- the best epoch


@pytest.mark.parametrize("metric", Metric)
def test_the_best_epochs_weights_are_kept_and_only_those_that_trained(
    bench: Bench, metric: Metric
) -> None:
    config = SMALL.model_copy(update={"lr": 0.02})
    record = bench.record(config.trial_id)
    rows, _ = bench.fit(config, record, metric=metric, epochs=6)
    sign = -1 if metric == "val_loss" else 1
    expected = max(rows, key=lambda row: (sign * getattr(row, metric), -row.val_loss, -row.epoch))
    (path,) = record.folder.glob("best-*.safetensors")
    assert path.name == f"best-{expected.epoch}.safetensors"
    model = build_model(config, bench.backbone)
    weights = safetensors.torch.load_file(path)
    assert weights.keys() == model.trained().keys()
    model.set_trained(weights)
    logits = bench.predict(model, bench.data.validation)
    predictions = record.predictions(expected.epoch)
    assert predictions["logit"].tolist() == logits.tolist()
    assert tuple(predictions["file"]) == bench.data.validation.files
    measured = measure(logits, bench.data.validation.labels)
    assert (measured.loss, measured.accuracy) == (expected.val_loss, expected.val_accuracy)


ROWS = st.builds(
    Row,
    epoch=st.just(1),
    train_loss=st.just(0.0),
    train_accuracy=st.just(0.0),
    val_loss=st.sampled_from([0.1, 0.2, 0.3]),
    val_accuracy=st.sampled_from([0.5, 0.6]),
    val_balanced_accuracy=st.sampled_from([0.5, 0.6]),
    val_auc=st.sampled_from([0.5, 0.6]),
    lr=st.just(1.0),
    seconds=st.just(1.0),
    images_per_second=st.just(1.0),
    gpu_memory_bytes=st.just(0),
    ended_at=st.just(""),
)


@given(st.sampled_from(Metric), ROWS, ROWS)
def test_better_is_by_the_metric_then_by_validation_loss_and_a_tie_stays(
    metric: Metric, row: Row, best: Row
) -> None:
    one, other = getattr(row, metric), getattr(best, metric)
    if one != other:
        assert is_better(metric, row, best) == ((one < other) == (metric == "val_loss"))
    else:
        assert is_better(metric, row, best) == (row.val_loss < best.val_loss)
    assert not (is_better(metric, row, best) and is_better(metric, best, row))


# ---------------------------------------------------------------- divergence and collapse


@pytest.mark.parametrize(("strategy", "lr"), [("full", 1e12), ("block5", 1e12), ("head", 1e38)])
def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(
    bench: Bench, strategy: str, lr: float
) -> None:
    config = TrialConfig(strategy=strategy, optimizer="sgd", lr=lr, head="linear", batch_size=6)
    record = bench.record(config.trial_id)
    rows, outcome = bench.fit(config, record)
    assert (rows, outcome.status) == ([], Status.DIVERGED)
    assert "not finite in epoch 1" in outcome.reason
    assert list(record.folder.iterdir()) == []


def test_a_divergence_leaves_the_rows_and_the_best_epoch_before_it(bench: Bench) -> None:
    """Each step multiplies the weights by -1e9, so that they overflow in the fifth epoch."""
    config = TrialConfig(
        strategy="head",
        head="linear",
        optimizer="sgd",
        lr=1.0,
        momentum=0,
        weight_decay=1e9,
        batch_size=24,
    )
    record = bench.record(config.trial_id)
    rows, outcome = bench.fit(config, record, epochs=9)
    assert outcome.status is Status.DIVERGED
    assert f"epoch {len(rows) + 1}" in outcome.reason
    assert 1 < len(rows) < 9
    assert record.rows() == rows
    best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert record.load_best(best).weights


def lopsided_validation(bench: Bench) -> Bench:
    """Four smiles in six validation images: then recalls tell whether one class was predicted."""
    images = bench.data.validation
    kept = [
        *torch.where(images.labels == 1)[0].tolist(),
        *torch.where(images.labels == 0)[0].tolist(),
    ][:6]
    fewer = only(images, kept)
    assert fewer.labels.sum() == 4
    data = TrainingData(bench.data.training, fewer)
    return Bench(bench.run, data, bench.backbone, bench.split)


def hasty(lr: float, seed: int) -> TrialConfig:
    """One step an epoch, each too far."""
    return TrialConfig(
        strategy="head", head="linear", optimizer="sgd", lr=lr, seed=seed, batch_size=24
    )


def gave_one_class(row: Row) -> bool:
    """Four of six images right, or two, with recalls of 0 and 1."""
    return row.val_balanced_accuracy == 0.5 and round(6 * row.val_accuracy) in (2, 4)


def test_a_trial_that_predicts_one_class_for_epochs_running_ends_as_collapsed(bench: Bench) -> None:
    uneven = lopsided_validation(bench)
    floor = log_loss([1, 1, 0], [2 / 3] * 3)
    ends: dict[int, set[int | None]] = {1: set(), 2: set(), 3: set()}
    for config in (hasty(0.05, 0), hasty(0.05, 1), hasty(0.05, 2), hasty(0.5, 0)):
        rows, outcome = uneven.fit(config, epochs=5)
        assert (len(rows), outcome.status) == (5, Status.FINISHED)
        nothing = [gave_one_class(row) and row.val_loss >= floor for row in rows]
        for patience, seen in ends.items():
            running = (n for n in range(patience, 6) if all(nothing[n - patience : n]))
            end = next(running, None)
            found, outcome = uneven.fit(config, epochs=5, collapse_epochs=patience)
            assert results(found) == results(rows)[:end]
            assert outcome.status is (Status.COLLAPSED if end else Status.FINISHED)
            if end is not None:
                assert outcome.reason.endswith(f" in epochs {end - patience + 1} to {end}")
            assert [row.collapsed for row in found] == [row.epoch == end for row in found]
            seen.add(end)
    assert len(ends[2]) > 1
    assert ends[1] != ends[2] != ends[3]


def test_a_collapse_is_counted_with_a_record_as_without(bench: Bench) -> None:
    uneven = lopsided_validation(bench)
    lengths = set()
    for seed in (0, 1, 2):
        record = uneven.record(f"seed-{seed}")
        config = hasty(0.05, seed)
        rows, outcome = uneven.fit(config, epochs=4, collapse_epochs=2)
        again, same = uneven.fit(config, record, epochs=4, collapse_epochs=2)
        assert (results(again), same.status) == (results(rows), outcome.status)
        lengths.add(len(rows))
    assert len(lengths) > 1


def test_one_class_with_a_loss_below_the_constant_answers_is_no_collapse(bench: Bench) -> None:
    uneven = lopsided_validation(bench)
    rows, outcome = uneven.fit(hasty(0.5, 0), epochs=3, collapse_epochs=2)
    assert all(gave_one_class(row) for row in rows[:2])
    assert all(row.val_loss < log_loss([1, 1, 0], [2 / 3] * 3) for row in rows[:2])
    assert outcome.status is Status.FINISHED


# ---------------------------------------------------------------- resuming

RESUMED = {
    "adam": TrialConfig(head="16", lr=0.01, batch_size=6, augmentation="flip_jitter", dropout=0.3),
    "sgd": TrialConfig(
        strategy="head",
        head="16",
        optimizer="sgd",
        lr=0.2,
        batch_size=7,
        schedule="cosine",
        schedule_epochs=3,
        warmup_epochs=0.5,
        dropout=0.3,
    ),
}
EPOCHS = 4


def files_of(record: TrialRecord) -> dict[str, bytes]:
    """What a trial leaves, but for its rows, in which time is measured, and its log."""
    return {
        path.name: path.read_bytes()
        for path in record.folder.iterdir()
        if path.name.startswith("best-") and path.suffix != ".json"
    }


def same_state(one: object, other: object) -> bool:
    """Are two states equal to the last bit?"""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same_state(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(map(same_state, one, other))
        )
    return one == other


@pytest.fixture(scope="module")
def wholes(
    faces: Faces, split_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TrialRecord]:
    """Each of `RESUMED` as a trial that never stopped."""
    bench = make_bench(faces, split_file, tmp_path_factory.mktemp("whole") / "run")
    records = {name: bench.record(name) for name in RESUMED}
    for name, record in records.items():
        rows, _ = bench.fit(RESUMED[name], record, epochs=EPOCHS)
        best = [max(rows[:n], key=lambda row: (row.val_accuracy, -row.val_loss)) for n in (1, 2, 3)]
        assert len({row.epoch for row in best}) == 2  # one was not the last when it was saved
    return records


def assert_equal(record: TrialRecord, whole: TrialRecord) -> None:
    """Rows, images right, weights, predictions and state of two trials are equal to the last bit."""
    assert results(record.rows()) == results(whole.rows())
    assert record.right.read_bytes() == whole.right.read_bytes()
    assert files_of(record) == files_of(whole)
    one, other = record.load_last(), whole.load_last()
    assert one is not None
    assert other is not None
    assert same_state(one | {"trial_id": ""}, other | {"trial_id": ""})


def train_until(bench: Bench, config: TrialConfig, record: TrialRecord, epoch: int) -> None:
    """Run a trial and drop it after `epoch`, without an orderly end."""
    run = bench.run.model_copy(update={"epochs": EPOCHS})
    trial = fit(config, run, bench.data, bench.backbone, record)
    while next(trial).epoch < epoch:
        pass
    trial.close()


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stop", range(1, EPOCHS))
@pytest.mark.parametrize("share", [0, math.inf], ids=["every epoch saved", "none saved"])
def test_a_trial_resumed_equals_one_that_never_stopped(
    bench: Bench,
    wholes: dict[str, TrialRecord],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    share: float,
) -> None:
    config, reference = RESUMED[name], wholes[name]
    monkeypatch.setattr(fit_module, "WRITING_SHARE", share)
    record = bench.record("stopped")
    train_until(bench, config, record, stop)
    assert record.last.exists() == (share == 0)
    _, outcome = bench.fit(config, record, epochs=EPOCHS)
    assert outcome.status is Status.FINISHED
    assert_equal(record, reference)


@pytest.mark.parametrize(
    ("share", "bytes_per_second", "saved"),
    [
        (1e-3, 3e8, [1, 2, 3]),  # a thousandth of the time that a writing takes is over at once
        (0, 1e-9, [1, 2, 3]),  # none need pass, though the first writing may take for ever
        (1e6, 3e8, [0, 0, 0]),
        (1, 1e-9, [0, 0, 0]),
    ],
)
def test_the_state_is_written_again_when_a_multiple_of_its_writing_time_has_passed(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    bytes_per_second: float,
    saved: list[int],
) -> None:
    monkeypatch.setattr(fit_module, "WRITING_SHARE", share)
    monkeypatch.setattr(fit_module, "DISK_BYTES_PER_SECOND", bytes_per_second)
    record, found = bench.record("saved"), []
    for _ in fit(SMALL, bench.run, bench.data, bench.backbone, record):
        found.append((record.load_last() or {"epoch": 0})["epoch"])
    assert found == saved


@pytest.mark.parametrize(
    ("config", "room", "is_left"),
    [
        (hasty(0.05, 0), 10**12, True),
        (hasty(0.05, 0), 0, False),
        (hasty(5, 0), 10**12, False),  # collapses, which must be on record when it is said
    ],
    ids=["finished", "no memory", "collapsed"],
)
def test_what_a_finished_trial_leaves_may_wait_where_memory_allows_and_is_the_same(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    config: TrialConfig,
    room: int,
    is_left: bool,
) -> None:
    monkeypatch.setattr("trainable.write_behind.free_bytes", lambda: room)
    monkeypatch.setattr(fit_module, "WRITING_SHARE", math.inf)
    run = bench.run.model_copy(update={"collapse_epochs": 2})
    calm, record, behind = bench.record("calm"), bench.record("behind"), Behind()
    record.behind = behind
    exhaust(fit(config, run, bench.data, bench.backbone, calm))
    exhaust(fit(config, run, bench.data, bench.backbone, record))
    assert behind.has_left == is_left
    assert record.last.exists() != is_left
    behind.begin(lambda: None, lambda error: pytest.fail(repr(error)))
    behind.wait()
    assert_equal(record, calm)


@pytest.mark.parametrize("name", RESUMED)
def test_a_trial_stopped_in_each_epoch_and_saved_in_some_equals_one_that_never_stopped(
    bench: Bench,
    wholes: dict[str, TrialRecord],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, reference = RESUMED[name], wholes[name]
    record = bench.record("stopped")
    run = bench.run.model_copy(update={"epochs": EPOCHS})
    for saved, until in ([1], 1), ([], 3), ([2], 3), ([], 4), ([4], 4):
        trial: Iterator[Row] = fit(config, run, bench.data, bench.backbone, record)
        last = record.load_last()
        epoch = last["epoch"] if last else 0
        while epoch < until:
            epoch += 1
            monkeypatch.setattr(fit_module, "WRITING_SHARE", 0 if epoch in saved else math.inf)
            assert next(trial).epoch == epoch
        del trial
    with caplog.at_level(logging.INFO):
        bench.fit(config, record, epochs=EPOCHS)
    assert "continues after epoch 4" in caplog.text
    assert_equal(record, reference)


@pytest.mark.parametrize("name", ["adam"])
def test_more_epochs_on_a_finished_trial_are_those_it_would_have_had(
    bench: Bench, wholes: dict[str, TrialRecord], name: str
) -> None:
    config, reference = RESUMED[name], wholes[name]
    record = bench.record("extended")
    for epochs in (1, 3, EPOCHS, EPOCHS):
        rows, _ = bench.fit(config, record, epochs=epochs)
    assert rows == []
    assert_equal(record, reference)


def test_a_collapse_is_counted_on_after_a_resume(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    uneven = lopsided_validation(bench)
    record = uneven.record("stopped")
    train_until(uneven, hasty(0.05, 1), record, 1)
    rows, outcome = uneven.fit(hasty(0.05, 1), record, epochs=5, collapse_epochs=2)
    assert [(row.epoch, row.collapsed) for row in rows] == [(2, True)]
    assert outcome.status is Status.COLLAPSED
    again, outcome = uneven.fit(hasty(0.05, 1), record, epochs=5, collapse_epochs=2)
    assert (again, outcome.status) == ([], Status.COLLAPSED)
    assert "epochs 1 to 2" in outcome.reason


SECOND_PROCESS = """
import sys
from pathlib import Path
import trainable.fit
from trainable.config import RunSettings, TrialConfig
from trainable.data import open_training_data
from trainable.network.model import load_backbone
from trainable.records.trial_folder import TrialRecord

split, folder, run, config = sys.argv[1:]
run, config = RunSettings.model_validate_json(run), TrialConfig.model_validate_json(config)
data = open_training_data(Path(split), run.images, run.image_size)
backbone = load_backbone(run.weights, run.width)
trainable.fit.WRITING_SHARE = 0
for row in trainable.fit.fit(config, run, data, backbone, TrialRecord(Path(folder))):
    print(row.epoch, flush=True)
"""


@pytest.mark.whole
@pytest.mark.parametrize("name", ["adam"])
def test_a_trial_killed_in_another_process_goes_on_as_if_nothing_had_happened(
    bench: Bench, wholes: dict[str, TrialRecord], name: str
) -> None:
    config = RESUMED[name]
    record = bench.record("killed")
    run = bench.run.model_copy(update={"epochs": 100_000})
    arguments = [
        str(bench.split),
        str(record.folder),
        run.model_dump_json(),
        config.model_dump_json(),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", SECOND_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 3:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    reached = len(record.rows())
    assert reached >= 3
    rows, outcome = bench.fit(config, record, epochs=reached + 2)
    assert rows[0].epoch in (reached, reached + 1)  # the kill may have come between row and state
    assert outcome.status is Status.FINISHED
    reference = bench.record("reference")
    bench.fit(config, reference, epochs=reached + 2)
    assert_equal(record, reference)


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", ["adam"])
@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("last.pt", broken),
        ("last.pt", flipped),
        ("best-*.safetensors", flipped),
        ("best-*.safetensors", gone),
        ("best-*.parquet", broken),
        ("best-*.parquet", gone),
        ("best-*.json", broken),
        ("best-*.json", gone),
        ("epochs.jsonl", gone),
    ],
)
def test_a_trial_whose_state_is_damaged_starts_again_and_says_so(
    bench: Bench,
    wholes: dict[str, TrialRecord],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pattern: str,
    damage: Callable[[Path], None],
) -> None:
    config, reference = RESUMED[name], wholes[name]
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    record = bench.record("damaged")
    train_until(bench, config, record, 1)
    (path,) = record.folder.glob(pattern)
    damage(path)
    rows, _ = bench.fit(config, record, epochs=2)
    assert "starts again" in caplog.text
    assert results(rows) == results(reference.rows())[:2]
    assert reference.right.read_bytes().startswith(record.right.read_bytes())
    assert record.load_best(
        rows[1] if is_better(Metric.VAL_ACCURACY, rows[1], rows[0]) else rows[0]
    )


@pytest.mark.parametrize("name", ["adam"])
def test_a_best_epoch_that_no_state_covers_is_written_anew(
    bench: Bench, wholes: dict[str, TrialRecord], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the repeated epoch has other numbers, so what was kept of it must go."""
    config, reference = RESUMED[name], wholes[name]
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    record = bench.record("ahead")
    train_until(bench, config, record, 1)
    for kept in record.folder.glob("best-1.*"):
        (record.folder / f"best-4{kept.suffix}").write_bytes(kept.read_bytes())
    monkeypatch.setattr(fit_module, "WRITING_SHARE", math.inf)
    bench.fit(config, record, epochs=EPOCHS)
    assert_equal(record, reference)


@pytest.mark.parametrize("name", ["sgd"])
def test_a_half_written_row_is_repeated(
    bench: Bench, wholes: dict[str, TrialRecord], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, reference = RESUMED[name], wholes[name]
    monkeypatch.setattr(fit_module, "WRITING_SHARE", 0)
    record = bench.record("half")
    train_until(bench, config, record, 2)
    with (record.folder / "epochs.jsonl").open("ab") as file:
        file.write(b'{"epoch": 3, "train_lo')
    rows, _ = bench.fit(config, record, epochs=EPOCHS)
    assert [row.epoch for row in rows] == [3, 4]
    assert_equal(record, reference)


@pytest.mark.parametrize("name", ["sgd"])
def test_rows_that_no_state_covers_are_repeated_and_named(
    bench: Bench,
    wholes: dict[str, TrialRecord],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, reference = RESUMED[name], wholes[name]
    monkeypatch.setattr(fit_module, "WRITING_SHARE", math.inf)
    record = bench.record("unsaved")
    train_until(bench, config, record, 3)
    with caplog.at_level(logging.INFO):
        bench.fit(config, record, epochs=EPOCHS)
    assert "repeats epochs 1 to 3" in caplog.text
    assert_equal(record, reference)


def test_what_a_killed_writer_left_aside_is_cleared_away(bench: Bench) -> None:
    record = bench.record("killed")
    (record.folder / ".last.pt.4711.tmp").write_bytes(b"half of a large state")
    bench.fit(SMALL, record, epochs=1)
    assert not list(record.folder.glob(".*"))


def test_a_trial_stops_before_it_writes_when_another_session_has_taken_over(bench: Bench) -> None:
    run = RunFolder(bench.run.folder)
    write_json(run.session, {"number": 1})
    record = TrialRecord.create(run, SMALL, number=0, session=1)
    trial = fit(SMALL, bench.run, bench.data, bench.backbone, record)
    next(trial)
    write_json(run.session, {"number": 2})
    before = {path.name: path.read_bytes() for path in record.folder.iterdir()}
    with pytest.raises(StaleSession):
        next(trial)
    assert {path.name: path.read_bytes() for path in record.folder.iterdir()} == before
    newer = run.trial(SMALL.trial_id, session=2)
    bench.fit(SMALL, newer)
    assert [row.epoch for row in newer.rows()] == [1, 2, 3]


def test_a_clock_that_is_set_back_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour back at every look: rows, state and resuming go by epochs, durations by another clock."""
    config = TrialConfig(strategy="block5", head="linear", batch_size=8)
    calm, _ = bench.fit(config)
    hours = iter(range(23, 0, -1))
    monkeypatch.setattr("trainable.fit.now", lambda: f"2026-01-01T{next(hours):02d}:00:00+00:00")
    record = bench.record(config.trial_id)
    first, _ = bench.fit(config, record, epochs=2)
    rest, outcome = bench.fit(config, record)
    assert results([*first, *rest]) == results(calm)
    assert outcome.status is Status.FINISHED
    assert [row.ended_at for row in record.rows()] == sorted(
        (row.ended_at for row in record.rows()), reverse=True
    )
    assert all(row.seconds > 0 for row in record.rows())


def test_the_first_guess_of_a_writing_time_is_that_of_the_files_which_a_trial_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a byte a second it is their size, but for headers: of Adam, which keeps most."""
    monkeypatch.setattr(fit_module, "DISK_BYTES_PER_SECOND", 1.0)
    config, record = TrialConfig(head="64"), bench.record("guessed")
    model = build_model(config, bench.backbone)
    steps = TrainingSteps(config, bench.run, model, bench.data.training.labels)
    guessed = fit_module._Saving(record, bench.data.validation, model, steps)._writing_seconds
    bench.fit(config, record, epochs=1)
    left = [record.last, *record.folder.glob("best-*.safetensors")]
    assert guessed == pytest.approx(sum(path.stat().st_size for path in left), rel=0.05)
