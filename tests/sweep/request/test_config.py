"""The YAML file: what it accepts, what it refuses, and how it says so."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sweep.request.config import Method, SweepConfig, dump_config, load_config
from sweep.request.yaml_text import parse_yaml
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.metric import Metric

TEXT = """\
name: smiling
data:
  images: faces
  table: faces.csv
  target: Smiling
model: {weights: none}
trial:
  strategy: [head, block5]
  lr: {loguniform: [1e-5, 1e-3]}
  optimizer: [adam, sgd]
  momentum: {when: {optimizer: sgd}, uniform: [0.8, 0.99]}
  epochs: 10
search: {method: tpe, trials: 24, first: [{strategy: head, lr: 1e-4}], time_limit: 8h}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(TEXT)
    return path


def refusal(file: Path, *overrides: str) -> str:
    """The line that a wrong configuration ends in."""
    with pytest.raises(RequestError) as refused:
        load_config(file, overrides)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_what_is_dumped_reads_back_as_the_same_configuration(file: Path) -> None:
    config = load_config(file, ["asha=off", "guards.collapse_epochs=off", "data.split=official"])
    again = file.with_name("resolved.yaml")
    again.write_text(dump_config(config))
    assert load_config(again) == config


def test_the_resolved_configuration_writes_out_every_default_with_absolute_paths(
    file: Path,
) -> None:
    facts = yaml.safe_load(dump_config(load_config(file)))
    assert facts["asha"] == {"grace_period": 1, "reduction_factor": 3, "rungs_of": "all"}
    assert facts["trial"]["batch_size"] == 32
    assert Path(facts["data"]["images"]).is_absolute()
    assert Path(facts["storage"]).is_absolute()


def test_numbers_are_numbers_and_words_are_words(file: Path) -> None:
    config = load_config(
        file,
        ["trial.lr=1e-3", "trial.weight_decay=1", "trial.augmentation=none", "search.first=[]"],
    )
    fixed = dict(config.space.fixed)
    assert fixed["lr"] == 0.001
    assert fixed["weight_decay"] == 1.0 and isinstance(fixed["weight_decay"], float)
    assert fixed["augmentation"] == "none"
    assert config.search.time_limit == 8 * 3600


@given(st.floats(1e-12, 1e6))
def test_any_learning_rate_survives_the_way_through_yaml(lr: float) -> None:
    value, _ = parse_yaml(f"lr: {lr!r}", "text")
    assert value == {"lr": lr}


def test_the_metric_has_a_direction(file: Path) -> None:
    assert load_config(file).metric.higher_is_better
    assert load_config(file, ["metric=val_loss"]).metric is Metric.VAL_LOSS
    assert not Metric.VAL_LOSS.higher_is_better


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trial.strategy=blok5", ["must be one of head, block5", "'blok5'", "did you mean block5"]),
        ("trial.lrr=3", ["no setting 'lrr'", "did you mean lr"]),
        ("serch.trials=3", ["no key 'serch'", "did you mean search"]),
        ("data.imagesize=64", ["no key 'data.imagesize'", "image_size"]),
        ("data.image_size=16", ["data.image_size", "32", "16"]),
        ("data.image_size=big", ["data.image_size", "'big'"]),
        ("search.method=grid", ["grid needs lists", "trial.lr is a range"]),
        (
            "search.method=tpf",
            [f"must be one of {', '.join(get_args(Method))}", "did you mean tpe"],
        ),
        ("search.trials=null", ["search.trials", "tpe"]),
        ("search.trials=0", ["search.trials", "0"]),
        ("search.time_limit=soon", ["search.time_limit", "8h", "'soon'"]),
        ("search.first=[{lr: 1}]", ["search.first", "lr", "outside"]),
        ("search.first=[{lrr: 1}]", ["search.first", "lrr", "not searched"]),
        (
            "search.first=[{optimizer: adam, momentum: 0.9}]",
            ["momentum", "only when optimizer is sgd"],
        ),
        ("trial.lr=[]", ["trial.lr", "empty"]),
        ("trial.lr=[0.1, 0.1]", ["trial.lr", "repeated"]),
        ("trial.lr=-1", ["trial.lr", "more than 0"]),
        ("trial.lr={loguniform: [0, 1]}", ["trial.lr", "above 0"]),
        ("trial.lr={uniform: [2, 1]}", ["trial.lr", "low to high"]),
        ("trial.lr={uniform: [1]}", ["trial.lr", "[low, high]"]),
        ("trial.lr={normal: [1, 2]}", ["trial.lr", "loguniform", "normal"]),
        ("trial.strategy={uniform: [1, 2]}", ["trial.strategy", "not a number"]),
        ("trial.batch_size={int: [8.5, 16]}", ["trial.batch_size", "whole"]),
        ("trial.momentum={when: {optimizer: adamw}, value: 0.9}", ["never hold", "adamw"]),
        (
            "trial.momentum={when: {optimiser: sgd}, value: 0.9}",
            ["optimiser", "did you mean optimizer"],
        ),
        ("trial.optimizer={when: {momentum: 0.9}, choice: [adam, sgd]}", ["cycle"]),
        ("trial.epochs=[1, 2]", ["trial.epochs", "budget"]),
        ("trial.epochs=0", ["trial.epochs", "at least 1"]),
        ("trial.head=3x", ["trial.head", "512-64", "'3x'"]),
        ("trial.schedule_epochs=0", ["schedule_epochs"]),
        ("resources.gpus_per_trial=0.3", ["gpus_per_trial", "1/k"]),
        ("resources.gpus_per_trial=1.5", ["gpus_per_trial", "1/k"]),
        ("asha={grace: 3}", ["asha.grace", "grace_period"]),
        ("asha.rungs_of=strategies", ["must be one of all, strategy", "did you mean strategy"]),
        ("asha.reduction_factor=1", ["reduction_factor", "2"]),
        ("keep.best=0", ["keep.best"]),
        ("metric=accuracy", ["metric", "val_accuracy"]),
        ("name=a b", ["name"]),
        ("name=../up", ["name"]),
        ("trial.epochs", ["KEY=VALUE"]),
        ("trial.lr=[1,", ["YAML"]),
    ],
)
def test_a_wrong_override_is_refused_in_one_line_that_names_it(
    file: Path, override: str, words: list[str]
) -> None:
    line = refusal(file, override)
    for word in words:
        assert word in line


LIBRARYS = (
    "Input",
    "a valid",
    "dictionary",
    "instance",
    "String",
    "pathlib",
    "constrained",
    "None",
)


def places(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each section with its keys, and each value that is one of several words, with these."""
    for name, field in model.model_fields.items():
        options = [field.annotation, *get_args(field.annotation)]
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield before + name, tuple(option.model_fields)
                yield from places(option, f"{before}{name}.")
            elif isinstance(option, type) and issubclass(option, StrEnum):
                yield before + name, tuple(map(str, option))
            elif get_origin(option) is Literal:
                yield before + name, tuple(map(str, get_args(option)))


KNOWN = {
    **dict(places(SweepConfig)),
    **{f"trial.{place}": words for place, words in places(TrialConfig)},
    "trial": (*TrialConfig.model_fields, "epochs"),
}


@pytest.mark.parametrize("given", ["xyz", "3", "true", "null", "[a]"])
@pytest.mark.parametrize("place", KNOWN)
def test_a_section_or_a_word_that_is_something_else_is_refused_with_what_may_stand_there(
    file: Path, place: str, given: str
) -> None:
    if (place, given) in {("asha", "null"), ("resources.gpus_per_trial", "3")}:
        load_config(file, [f"{place}={given}"])
        return
    if place.startswith(("resources.cpus", "resources.conc")) and given in ("3", "true"):
        return
    if (place, given) == ("resources.gpus_per_trial", "true"):
        return
    line = refusal(file, f"{place}={given}")
    assert line.startswith(f"{place} must be ") and line.endswith(
        f"see the override {place}={given}"
    )
    assert all(word in line for word in KNOWN[place])
    assert not any(word in line.partition(": see")[0] for word in LIBRARYS), line


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("asha=on", "asha must be off, or a section with keys (grace_period, reduction_factor, "),
        ("guards=on", "guards must be off, or a section with keys (collapse_epochs, hung_after)"),
        ("data.split=split", "data.split must be official, or a section with keys (seed, "),
        (
            "name=a/b",
            "name must consist of the letters A to Z and a to z, digits, dots, _ and -, and begin",
        ),
        ("storage=3", "storage must be a path, but it is 3"),
        ("data.target=null", "data.target must be text, but it is empty"),
        ("data.split.official=perhaps", "data.split.official must be true or false"),
        ("search.first=head", "search.first must be a list, but it is 'head'"),
        ("search.first=[head]", "search.first must be keys with their values"),
        ("search.trials=many", "search.trials must be a whole number"),
        ("search.time_limit=[1]", "search.time_limit must be a duration such as 8h, 90m or 45s"),
        ("store.limit=[1]", "store.limit must be a size such as 200GB"),
        ("guards.hung_after=long", "guards.hung_after must be off, or a duration such as 8h"),
        ("guards.collapse_epochs=-1", "guards.collapse_epochs must be off, or at least 1"),
        ("resources.concurrent=0", "resources.concurrent must be auto or at least 1, but it is 0"),
        ("model.width=2", "model.width must be at most 1, but it is 2"),
        ("data.split.test=1", "data.split.test must be less than 1, but it is 1"),
        ("trial.lr=.nan", "trial.lr must be a finite number"),
        (
            "data.split={column: a, group: b}",
            "data.split must have neither official nor group beside",
        ),
    ],
)
def test_what_may_stand_in_a_place_is_said_in_our_words(
    file: Path, override: str, said: str
) -> None:
    line = refusal(file, override)
    assert said in line
    assert not any(word in line.partition(": see")[0] for word in LIBRARYS), line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[head, block5]", "blok5", ["line 8", "did you mean block5"]),
        ("target: Smiling", "tagret: Smiling", ["data.target"]),
        ("name: smiling", "name: smiling\nname: other", ["line 2", "'name'", "twice"]),
        ("  epochs: 10", "\tepochs: 10", ["line 12"]),
        ("{method: tpe,", "{method: [tpe,", ["line 13"]),
        ("name: smiling\n", "", ["name must be given"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    file: Path, old: str, new: str, words: list[str]
) -> None:
    file.write_text(TEXT.replace(old, new))
    line = refusal(file)
    for word in [*words, str(file)][: len(words) + ("must be given" not in words[0])]:
        assert word in line


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.yaml")
    for content, word in (
        (b"- a\n", "keys"),
        (b"\xff\xfe", "UTF-8"),
        (b"", "keys"),
    ):
        path = tmp_path / "wrong.yaml"
        path.write_bytes(content)
        assert word in refusal(path)


def test_what_python_can_t_read_of_yaml_is_refused_too(file: Path) -> None:
    assert "must be YAML" in refusal(file, f"trial.lr={'1' * 5000}")
    assert "must be YAML" in refusal(file, f"trial.lr={'[' * 5000}")


def test_a_key_without_a_value_is_as_if_it_were_null(file: Path) -> None:
    file.write_text(TEXT.replace("table: faces.csv", "table:"))
    assert load_config(file).data.table is None


def test_overrides_may_open_a_section_that_the_file_has_not(file: Path) -> None:
    config = load_config(file, ["asha.grace_period=2", "resources.gpus_per_trial=1/3"])
    assert config.asha is not None and config.asha.grace_period == 2
    assert config.resources.gpus_per_trial == pytest.approx(1 / 3)


def test_ten_epochs_are_the_first_half_of_twenty(file: Path) -> None:
    short: Any = load_config(file, ["trial.schedule=cosine"])
    long: Any = load_config(
        file, ["trial.schedule=cosine", "trial.epochs=20", "trial.schedule_epochs=10"]
    )
    point = {"strategy": "head", "lr": 1e-4, "optimizer": "adam"}
    assert short.space.settings(point).trial_id == long.space.settings(point).trial_id
