"""What is refused before Ray starts, and whether a run still has what it began with."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sweep.request.config import SweepConfig, check_config, load_config
from sweep.request.open_run import open_run
from sweep.request.prepare import check_unchanged, prepare
from sweep.session.extend import Request, extended
from tests.support.faces import Faces, sweep_facts, write_faces
from tests.support.made_runs import change_config, create_run
from trainable.errors import RequestError
from trainable.records.manifest import read_manifest

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.target=Smilling", ["'Smilling'", "did you mean Smiling"]),
        ("data.images=/nowhere", ["data.images", "/nowhere"]),
        ("data.table=/nowhere.csv", ["data.table", "/nowhere.csv"]),
        ("model.weights=/nowhere.pth", ["model.weights", "/nowhere.pth"]),
        ("model.weights=imagenet", ["width"]),
        ("trial.head=pretrained", ["head: pretrained", "classifier.0"]),
        ("resources.gpus_per_trial=2", ["gpus_per_trial", "one GPU", "it is 2", "use 1"]),
        ("data.split=official", ["list_eval_partition"]),
    ],
)
def test_what_is_wrong_is_refused_before_ray_in_one_line(
    config: SweepConfig, tmp_path: Path, override: str, words: list[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    with pytest.raises(RequestError) as refused:
        prepare(load_config(path, [override]))
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_on_record_with_two_gpus_a_trial_still_goes_on(config: SweepConfig) -> None:
    """A trial used one of them then, and does now."""
    run = create_run(config, prepare(config), [])
    facts = config.model_dump(mode="json") | {"resources": {"gpus_per_trial": 2}}
    change_config(open_run(run.path), check_config(facts, {}, "test"), ["sweep", "run"])
    opened = open_run(run.path)
    assert opened.config.resources.gpus_per_trial == 2
    assert check_unchanged(opened) == []
    assert extended(opened.config, Request(epochs=5)).epochs == 5


def test_unreadable_images_are_refused_or_left_out_by_name(
    config: SweepConfig, tmp_path: Path
) -> None:
    own = write_faces(tmp_path, 44)
    data = config.data.model_copy(update={"images": own.images, "table": own.table})
    config = config.model_copy(update={"data": data})
    for file in (own.files[3], own.files[10]):
        (own.images / file).write_bytes(b"<html>")
    with pytest.raises(RequestError, match=r"000004.jpg .* \(and 1 more\); .*data.unreadable=drop"):
        prepare(config)
    config = config.model_copy(update={"data": data.model_copy(update={"unreadable": "drop"})})
    prepared = prepare(config)
    assert set(prepared.data.split["file"]) == set(own.files) - {own.files[3], own.files[10]}
    assert (
        "2 images that can't be decoded are left out: 000004.jpg, 000011.jpg" in prepared.warnings
    )
    whole = [
        hashlib.sha256((own.images / f).read_bytes()).hexdigest()
        for f in prepared.data.split["file"]
    ]
    assert list(prepared.data.split["sha256"]) == whole
    assert len(prepared.data.table.attributes) == 42
    run = create_run(config, prepared, [])
    assert read_manifest(run).images.unreadable == ("000004.jpg", "000011.jpg")


# ---------------------------------------------------------------- what a run was begun with


@pytest.fixture
def own_config(config: SweepConfig, tmp_path: Path) -> SweepConfig:
    """On images that may be changed."""
    faces = write_faces(tmp_path / "own", 40)
    data = config.data.model_copy(update={"images": faces.images, "table": faces.table})
    return config.model_copy(update={"data": data})


def test_a_run_goes_on_only_with_the_split_images_and_weights_that_it_began_with(
    own_config: SweepConfig,
) -> None:
    run = create_run(own_config, prepare(own_config), [])
    assert check_unchanged(open_run(run.path)) == []
    images = own_config.data.images

    aside = images / "aside"
    first = images / "000003.jpg"
    before = first.read_bytes()
    first.write_bytes((images / "000004.jpg").read_bytes())
    with pytest.raises(
        RequestError, match=f"{first} has changed or is missing; put the old one back"
    ):
        check_unchanged(open_run(run.path))
    first.rename(aside)
    (images / "000004.jpg").rename(images / "b")
    with pytest.raises(RequestError, match=r"has changed or is missing \(and 1 more\)"):
        check_unchanged(open_run(run.path))
    (images / "b").rename(images / "000004.jpg")
    first.write_bytes(before)
    assert check_unchanged(open_run(run.path)) == []

    opened = open_run(run.path)
    narrower = own_config.model.model_copy(update={"width": 0.04})
    changed = replace(opened, config=own_config.model_copy(update={"model": narrower}))
    with pytest.raises(RequestError, match="weights none must stay as they were"):
        check_unchanged(changed)

    split = pd.read_parquet(run.split)
    split["label"] = 1 - split["label"]
    split.to_parquet(run.split, index=False)
    with pytest.raises(RequestError, match=r"split\.parquet must have the SHA-256"):
        check_unchanged(open_run(run.path))


def test_a_table_that_changes_changes_no_label_and_is_said(own_config: SweepConfig) -> None:
    run = create_run(own_config, prepare(own_config), [])
    table = own_config.data.table
    assert table is not None
    table.write_text(table.read_text() + "\n")
    (said,) = check_unchanged(open_run(run.path))
    assert "has changed or is missing: the run keeps the labels that it began with" in said
    table.unlink()
    assert len(check_unchanged(open_run(run.path))) == 1


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"asha": {"grace_period": 3}}, "ASHA compares nothing: its grace period of 3 "),
        ({"asha": {"rungs_of": "strategy"}}, "every trial has the strategy block5"),
        ({"asha": "off"}, None),
    ],
)
def test_a_request_in_which_asha_can_do_nothing_is_warned_of(
    faces: Faces, tmp_path: Path, sections: dict[str, object], words: str | None
) -> None:
    trial = {"strategy": "block5", "lr": [1e-3, 1e-4], "epochs": 3}
    config = check_config(sweep_facts(faces, tmp_path, trial, **sections), {}, "test")
    about_asha = [warning for warning in prepare(config).warnings if "asha" in warning.lower()]
    assert len(about_asha) == (words is not None)
    assert words is None or words in about_asha[0]
