"""Frozen features shared through the store: the same training as without, done once, whatever happens to the files."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import Bench, results
from trainable.config import Sharing, TrialConfig
from trainable.features import Shared
from trainable.fit import fit

ALL = frozenset(
    {"0 fixed"} | {f"{cut} {family}" for cut in (10, 17, 24, 31) for family in ("fixed", "epoch")}
)


@pytest.fixture
def sharing(bench: Bench, tmp_path: Path) -> Bench:
    """The bench with a store of its own."""
    run = bench.run.model_copy(update={"sharing": Sharing(kept=ALL), "store": tmp_path / "store"})
    return dataclasses.replace(bench, run=run)


def shared(bench: Bench) -> Shared:
    return Shared(bench.run, bench.data, bench.backbone)


def trained(bench: Bench, config: TrialConfig, name: str, by: Shared | None = None):
    record = bench.record(name)
    from tests.conftest import exhaust

    rows, outcome = exhaust(fit(config, bench.run, bench.data, bench.backbone, record, by))
    best = record.load_last()
    return rows, outcome, best["trained"]


CONFIGS = [
    TrialConfig(strategy=s, augmentation=a, optimizer=o, head="16", batch_size=5, lr=1e-3)
    for s in ("head", "block5", "full")
    for a in ("none", "flip", "flip_jitter")
    for o in ("adam", "sgd")
]


@pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"{c.strategy}-{c.augmentation}-{c.optimizer}"
)
def test_shared_features_train_the_same_to_the_last_bit(
    sharing: Bench, config: TrialConfig
) -> None:
    rows, outcome, weights = trained(sharing, config, "plain")
    by = shared(sharing)
    for state in ("cold", "warm"):
        again, same_outcome, same_weights = trained(sharing, config, state, by)
        assert results(again) == results(rows) and outcome == same_outcome
        assert all(torch.equal(same_weights[name], weights[name]) for name in weights)
        print(state, [(r.frozen_images, r.shared_images, r.frozen_multiply_adds) for r in again])
