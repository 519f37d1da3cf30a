"""A trial's identity is the settings that change its result, and nothing else."""

import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.project import ROOT
from trainable.config import (
    DataConfig,
    Kept,
    ModelConfig,
    Sharing,
    SplitConfig,
    Strategy,
    TrialConfig,
)

DOMAINS: dict[str, st.SearchStrategy[Any]] = {
    "strategy": st.sampled_from(get_args(Strategy)),
    "augmentation": st.sampled_from(["none", "flip", "flip_jitter"]),
    "lr": st.floats(1e-6, 1),
    "backbone_lr_ratio": st.floats(0.01, 1),
    "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
    "momentum": st.floats(0, 0.99),
    "weight_decay": st.floats(0, 0.1),
    "head": st.sampled_from(["mlp", "pretrained", "linear", "512-64", "8"]),
    "dropout": st.floats(0, 0.9),
    "batch_size": st.integers(1, 512),
    "class_weight": st.sampled_from(["none", "balanced"]),
    "schedule": st.sampled_from(["constant", "cosine"]),
    "warmup_epochs": st.floats(0, 5),
    "schedule_epochs": st.integers(1, 100),
    "seed": st.integers(0, 2**40),
    "augmentation_seed": st.integers(0, 2**40),
    "views": st.integers(1, 20),
}
SETTINGS = st.fixed_dictionaries(DOMAINS)
IDLE = [  # what does not act, beside what makes it so
    ("momentum", {"optimizer": "adam"}),
    ("momentum", {"optimizer": "adamw"}),
    ("backbone_lr_ratio", {"strategy": "head"}),
    ("dropout", {"head": "linear"}),
    ("schedule_epochs", {"schedule": "constant"}),
    ("augmentation_seed", {"augmentation": "none"}),
    ("views", {"augmentation": "none"}),
    ("views", {"augmentation": "flip"}),
]
ACTING = {
    "optimizer": "sgd",
    "strategy": "block5",
    "head": "mlp",
    "schedule": "cosine",
    "augmentation": "flip_jitter",
}


def test_every_setting_is_tried() -> None:
    assert DOMAINS.keys() == TrialConfig.model_fields.keys()


@given(SETTINGS)
def test_an_id_is_twelve_hex_digits(settings: dict[str, Any]) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", TrialConfig(**settings).trial_id)


@given(SETTINGS, st.randoms())
def test_the_order_of_the_settings_is_no_part_of_the_identity(
    settings: dict[str, Any], random: Any
) -> None:
    names = list(settings)
    random.shuffle(names)
    shuffled = TrialConfig(**{name: settings[name] for name in names})
    assert shuffled.trial_id == TrialConfig(**settings).trial_id


@pytest.mark.parametrize(("name", "beside"), IDLE)
@limited(max_examples=25)
@given(data=st.data())
def test_a_setting_that_does_not_act_is_no_part_of_the_identity(
    name: str, beside: dict[str, str], data: st.DataObject
) -> None:
    settings = data.draw(SETTINGS) | beside
    other = settings | {name: data.draw(DOMAINS[name])}
    assert TrialConfig(**settings).trial_id == TrialConfig(**other).trial_id


@pytest.mark.parametrize("name", sorted(DOMAINS))
@limited(max_examples=25)
@given(data=st.data())
def test_a_setting_that_acts_is_part_of_the_identity(name: str, data: st.DataObject) -> None:
    settings = data.draw(SETTINGS) | ACTING
    other = settings | {name: data.draw(DOMAINS[name].filter(lambda v: v != settings[name]))}
    assert TrialConfig(**settings).trial_id != TrialConfig(**other).trial_id


@given(SETTINGS)
def test_settings_that_were_written_down_have_the_same_id_when_read_back(
    settings: dict[str, Any],
) -> None:
    config = TrialConfig(**settings)
    assert TrialConfig.model_validate_json(config.model_dump_json()).trial_id == config.trial_id
    acting = config.effective() | ({"schedule_epochs": 7} if config.schedule == "constant" else {})
    assert TrialConfig(**acting).trial_id == config.trial_id


def test_whole_numbers_and_floats_of_equal_value_are_one_trial() -> None:
    whole = TrialConfig(lr=1, weight_decay=0, warmup_epochs=2, dropout=0, batch_size=8)
    floats = TrialConfig(lr=1.0, weight_decay=0.0, warmup_epochs=2.0, dropout=0.0, batch_size=8.0)
    assert whole == floats
    assert whole.trial_id == floats.trial_id


def test_a_hidden_size_may_be_written_as_a_number() -> None:
    assert TrialConfig(head=64).trial_id == TrialConfig(head="64").trial_id


def test_known_settings_keep_the_ids_under_which_runs_have_filed_them() -> None:
    assert TrialConfig().trial_id == "efcdd2f0306c"
    reference = TrialConfig(
        strategy="block5",
        augmentation="flip_jitter",
        optimizer="sgd",
        momentum=0.95,
        schedule="cosine",
        schedule_epochs=10,
        head="512-64",
    )
    assert reference.trial_id == "e1d81748f51b"


class WithOneMore(TrialConfig):
    """As if a version to come had another setting."""

    later: ClassVar[Mapping[str, object]] = {**TrialConfig.later, "label_smoothing": 0.0}
    label_smoothing: float = 0.0


@limited(max_examples=25)
@given(SETTINGS)
def test_a_setting_that_came_later_leaves_the_ids_on_record_alone(settings: dict[str, Any]) -> None:
    before, after = TrialConfig(**settings), WithOneMore(**settings)
    assert (after.trial_id, after.setting_id) == (before.trial_id, before.setting_id)
    assert after.effective() == before.effective() | {"label_smoothing": 0.0}
    smoothed = WithOneMore(**settings, label_smoothing=0.1)
    assert smoothed.trial_id != before.trial_id
    assert smoothed.setting_id != before.setting_id


def test_settings_that_the_oldest_runs_lack_are_named_with_the_default_they_came_with() -> None:
    with tarfile.open(ROOT / "tests/fixtures/runs-21d5110/finished.tar.gz") as archive:
        name = next(name for name in archive.getnames() if name.endswith("/config.json"))
        packed = archive.extractfile(name)
        assert packed is not None
        oldest = json.load(packed)["settings"]
    came_later = {
        name: field.default
        for name, field in TrialConfig.model_fields.items()
        if name not in oldest
    }
    assert came_later == TrialConfig.later


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"lr": -1e-4},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"momentum": 1},
        {"dropout": 1},
        {"dropout": float("nan")},
        {"backbone_lr_ratio": 0},
        {"backbone_lr_ratio": 1.5},
        {"weight_decay": -1},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"seed": -1},
        {"strategy": "blok5"},
        {"augmentation": "mirror"},
        {"optimizer": "rmsprop"},
        {"head": "512-"},
        {"head": "0-64"},
        {"head": True},
        {"schedule": "cosine"},
        {"epochs": 10},
        {"learning_rate": 1e-3},
    ],
    ids=str,
)
def test_a_setting_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        TrialConfig(**wrong)
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize("side", [31, 0, -224])
def test_an_image_too_small_for_five_halvings_is_refused(side: int) -> None:
    with pytest.raises(ValidationError, match="image_size"):
        DataConfig(images=".", target="Smiling", image_size=side)
    assert DataConfig(images=".", target="Smiling", image_size=32).image_size == 32


@pytest.mark.parametrize("width", [0, 1.5, float("nan")])
def test_a_width_is_a_share_of_the_channels(width: float) -> None:
    with pytest.raises(ValidationError, match="width"):
        ModelConfig(width=width)


def test_a_split_is_a_seed_or_the_official_one() -> None:
    official = DataConfig(images=".", target="Smiling", split="official")
    assert official.split == SplitConfig(official=True)
    with pytest.raises(ValidationError, match="seed"):
        SplitConfig(seed=2**32)  # scikit-learn's seeds end before it


def test_the_value_that_counts_as_positive_may_be_written_as_a_number() -> None:
    assert DataConfig(images=".", target="Smiling", positive=-1).positive == "-1"


def test_a_word_for_missing_that_yaml_reads_as_null_is_to_be_quoted() -> None:
    with pytest.raises(ValidationError, match='write it in quotes: "null"'):
        DataConfig(images=".", target="Smiling", missing_values=[None])
    assert DataConfig(images=".", target="Smiling", missing_values=["null", -9]).missing_values == (
        "null",
        "-9",
    )


@pytest.mark.parametrize("given", ["24", "24 never", "fixed 24", ""])
def test_what_is_kept_is_a_layer_and_a_family_of_views(given: str) -> None:
    with pytest.raises(ValidationError, match="such as `24 fixed`"):
        Sharing(kept=[given])
    assert Sharing(kept=["24 fixed"]).kept == {Kept(24, "fixed")}
