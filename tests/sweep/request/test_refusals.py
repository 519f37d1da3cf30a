"""What is asked for now: refused where it can't be meant, while a run on record goes on with the same."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import sweep
from sweep.__main__ import app
from sweep.request.config import AshaConfig, check_config, dump_config, load_config
from sweep.request.open_run import open_run
from sweep.request.prepare import prepare
from sweep.request.refusals import check_folder, load_request
from sweep.resources.machine import check_format, check_machine
from sweep.resources.needs import activations
from sweep.session.extend import Request, extended
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run
from tests.support.manifests import ask_instead
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.network.model import build_model, load_backbone

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def file(faces: Faces, tmp_path: Path) -> Path:
    """A request that is right."""
    path = tmp_path / "sweep.yaml"
    trial = {"strategy": ["head", "block5"], "epochs": 3}
    path.write_text(yaml.safe_dump(sweep_facts(faces, tmp_path / "runs", trial)))
    return path


def refusal(file: Path, *overrides: str) -> str:
    """The line that a wrong request ends in."""
    with pytest.raises(RequestError) as refused:
        load_request(file, overrides)
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.time_limit=10", ["time_limit must have a unit", "10s, 10m or 10h"]),
        ("search.time_limit='90'", ["time_limit must have a unit", "90s, 90m or 90h"]),
        ("search.time_limit=1.5", ["1.5s, 1.5m or 1.5h"]),
        ("search.time_limit=true", ["duration such as 8h", "True"]),
        ("search.time_limit=.inf", ["duration such as 8h", "leave it out"]),
        ("guards.hung_after=30", ["hung_after must have a unit", "30s, 30m or 30h"]),
        ("asha.grace_period=3", ["asha", "3 (asha.grace_period) of 3 (trial.epochs)", "asha=off"]),
        ("asha={grace_period: 9, reduction_factor: 3}", ["it can prune nothing"]),
        ("asha={}", ["line"]),
        (
            "storage=s3://bucket/runs",
            ["storage", "s3://bucket/runs is an address (s3)", "mount it"],
        ),
        ("storage=gs://bucket", ["(gs)"]),
        ("storage=file:///tmp/runs", ["(file)"]),
        ("storage=s3:/bucket", ["is an address (s3)"]),
        ("storage=nas:/runs", ["is an address (nas)"]),
        ("storage=$SCRATCH/runs", ["$SCRATCH", "not expanded"]),
        ("storage=${HOME}/runs", ["${HOME}"]),
        ("storage=~nobody-of-this-name/runs", ["storage", "home of a user who is unknown"]),
        ("data.images=~nobody-of-this-name/faces", ["data.images", "is unknown here"]),
        ("data.images=https://host/faces.zip", ["data.images", "(https)", "fetch it"]),
        ("data.table=s3://bucket/faces.csv", ["data.table", "(s3)"]),
        ("model.weights=https://host/vgg16.pth", ["model.weights", "(https)"]),
        ("name=08", ["name must be text", "it is 8", "put it in quotes"]),
        ("data.target=true", ["data.target must be text", "it is true", "put it in quotes"]),
        ('storage="a\\0b"', ["storage", "null character"]),
    ],
)
def test_what_can_t_be_meant_is_refused_with_its_place(
    file: Path, override: str, words: list[str]
) -> None:
    if override == "asha={}":
        file.write_text(file.read_text().replace("epochs: 3", "epochs: 1"))
    line = refusal(file, override)
    for word in words if override != "asha={}" else ["it can prune nothing", "override asha={}"]:
        assert word in line


def test_a_duration_with_its_unit_an_asha_that_prunes_and_a_default_one_are_taken(
    file: Path,
) -> None:
    for text, seconds in (("10s", 10.0), ("10m", 600.0), ("1.5h", 5400.0)):
        assert load_request(file, [f"search.time_limit={text}"]).search.time_limit == seconds
    assert load_request(file, ["guards.hung_after=off", "search.time_limit=null"])
    assert load_request(file, ["asha.grace_period=2"]).asha == AshaConfig(grace_period=2)
    assert load_request(file, ["trial.epochs=1"]).asha == AshaConfig(), "nobody asked for it"
    assert load_request(file, ["trial.epochs=1", "asha=off"]).asha is None


def test_home_is_written_as_a_tilde_everywhere(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ["storage=~/r", "data.images=~/i", "data.table=~/t.csv", "model.weights=~/w.pth"]
    config = load_request(file, given)
    assert config.storage == tmp_path / "r"
    assert config.data.images == tmp_path / "i"
    assert config.data.table == tmp_path / "t.csv"
    assert config.model.weights == str(tmp_path / "w.pth")
    shown = CliRunner().invoke(app, ["status", "~/none"])
    assert str(tmp_path / "none") in str(shown.exception)
    monkeypatch.chdir(tmp_path)
    before = tmp_path / "~" / "none"  # as a run was named whose storage was ~
    before.mkdir(parents=True)
    shown = CliRunner().invoke(app, ["status", "./~/none"])
    assert str(before) in str(shown.exception)


def test_a_configuration_comes_from_a_file_or_from_its_keys_and_is_the_same(
    faces: Faces, tmp_path: Path, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    facts = sweep_facts(faces, tmp_path, {"strategy": ["head", "full"], "epochs": 4})
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(facts))
    before = yaml.safe_dump(facts)
    overrides = ["trial.epochs=3", "search.seed=7"]
    from_keys = sweep.load_config(facts, overrides)
    assert (
        from_keys == sweep.load_config(path, overrides) == sweep.load_config(str(path), overrides)
    )
    assert (from_keys.epochs, from_keys.search.seed) == (3, 7)
    assert yaml.safe_dump(facts) == before, "what was given stays as it was"
    with pytest.raises(RequestError) as caught:
        sweep.load_config({**facts, "search": {"method": "grid", "time_limit": 8}})
    assert "unit" in refused(caught) and "the configuration" in refused(caught)


def test_a_run_on_record_has_what_a_request_is_refused_for_and_goes_on(
    file: Path, tmp_path: Path
) -> None:
    """As an earlier version wrote it: seconds without a unit, an ASHA that prunes nothing, a folder named s3:."""
    config = load_config(file)
    run = create_run(config, prepare(config), [])
    facts = yaml.safe_load(run.config.read_text())
    facts["search"]["time_limit"] = 28800.0
    facts["guards"]["hung_after"] = 1800
    facts["asha"] = {"grace_period": 9, "reduction_factor": 3}
    facts["storage"] = str(tmp_path / "s3:" / "bucket")
    run.config.write_text(yaml.safe_dump(facts, sort_keys=False))
    ask_instead(run, run.config.read_text())
    old = open_run(run.path).config
    assert (old.search.time_limit, old.guards.hung_after) == (28800.0, 1800.0)
    longer = extended(old, Request(epochs=5))
    assert longer.asha == AshaConfig(grace_period=9)
    assert (longer.search.time_limit, longer.storage) == (28800.0, tmp_path / "s3:" / "bucket")


# ---------------------------------------------------------------- what is written is read back


ODD = """08 1e5 1e-3 007 0x10 0o7 1_000 true No null ~ 12:30 .5 2024-01-01 << = *a !a &a [a {a 'a "a %a @a `a"""
texts = st.text(min_size=1, max_size=30) | st.sampled_from(
    [*ODD.split(), "- a", "a: b", "a #b", " a ", "a  b " * 30, "\u2028", "\x85", "\r\n", "\ufeff"]
)
paths = texts.filter(lambda text: "\0" not in text and text[0] != "~")


@given(
    name=st.sampled_from(["08", "1e5", "null", "1.50", "0x1f", "2024-01-01"])
    | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
    target=texts,
    positive=st.none() | texts,
    group=st.none() | texts,
    storage=paths,
    images=paths,
    table=st.none() | paths,
    weights=paths,
    seconds=st.none() | st.floats(1e-9, 1e15),
    lr=st.floats(1e-30, 1e30),
)
def test_what_is_written_is_read_back_the_same_whatever_the_text(
    tmp_path_factory: pytest.TempPathFactory, **drawn: object
) -> None:
    config = check_config(
        {
            "name": drawn["name"],
            "storage": drawn["storage"],
            "data": {
                "images": drawn["images"],
                "table": drawn["table"],
                "target": drawn["target"],
                "positive": drawn["positive"],
                "split": {"group": drawn["group"]},
            },
            "model": {"weights": drawn["weights"]},
            "trial": {"strategy": "head", "lr": drawn["lr"], "head": "512"},
            "search": {"method": "grid", "time_limit": drawn["seconds"]},
        },
        {},
        "test",
    )
    path = tmp_path_factory.getbasetemp() / f"dumped-{os.getpid()}.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["target"] == drawn["target"]


@pytest.mark.parametrize("overrides", [[], ["trial.epochs=1"], ["search.time_limit=90m"]])
def test_what_a_run_has_on_record_can_be_asked_for_again(file: Path, overrides: list[str]) -> None:
    config = load_request(file, [*overrides, "guards.hung_after=30m"])
    written = file.with_name("resolved.yaml")
    written.write_text(dump_config(config))
    assert load_request(written) == config


# ---------------------------------------------------------------- where the run would lie


def command(file: Path, *arguments: str) -> str:
    """The line that the command ends in."""
    done = CliRunner().invoke(app, [*arguments[:1], str(file), *arguments[1:]])
    assert isinstance(done.exception, RequestError), done.output
    return str(done.exception)


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_plan_refuses_a_folder_as_run_does(file: Path, tmp_path: Path, verb: str) -> None:
    existing = tmp_path / "runs" / "run"
    existing.mkdir(parents=True)
    assert "must be new, but it exists" in command(file, verb)
    existing.rmdir()
    existing.symlink_to("nowhere")
    assert "must be new, but it exists" in command(file, verb)
    existing.unlink()
    existing.parent.rmdir()
    (tmp_path / "runs").write_text("a file")
    assert "can't be created: Not a directory" in command(file, verb)
    (tmp_path / "runs").unlink()
    assert "can't be created" in command(file, verb, "storage=/proc/runs")
    assert "name=" not in command(file, verb, f"name={'n' * 250}")
    assert not (tmp_path / "runs").exists()


def test_trying_whether_the_folder_can_be_made_leaves_nothing(file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    check_folder(load_request(file, [f"storage={tmp_path / 'a' / 'b'}"]))
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "runs").mkdir()
    check_folder(load_request(file))
    assert list((tmp_path / "runs").iterdir()) == []


# ---------------------------------------------------------------- what a trial gets of this machine


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "resources.gpus_per_trial=1",
            ["gpus_per_trial is 1, but torch finds no GPU here", "0 or auto"],
        ),
        ("resources.gpus_per_trial=1/2", ["gpus_per_trial is 0.5"]),
        ("resources.gpus_per_trial=2", ["since a trial trains on one GPU"]),
        ("resources.cpus_per_trial=10000", ["one node must hold a whole trial", "10000 CPUs"]),
        ("resources.precision=float16", ["float16 needs GPUs"]),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_plan_refuses_what_this_machine_can_t_give_as_run_does(
    file: Path, monkeypatch: pytest.MonkeyPatch, verb: str, override: str, words: list[str]
) -> None:
    monkeypatch.setattr("sweep.resources.machine.gpu_count", lambda: 0)
    monkeypatch.setattr("sweep.resources.machine.unused_gpu", lambda: "")
    line = command(file, verb, override)
    for word in words:
        assert word in line
    assert not load_request(file).storage.exists()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU that torch can't use."""
    monkeypatch.setattr("sweep.resources.machine.gpu_count", lambda: 0)
    monkeypatch.setattr(
        "sweep.resources.machine.unused_gpu", lambda: "this machine has a T4, but torch …"
    )


def test_a_gpu_that_torch_can_t_use_is_said_unless_cpus_were_asked_for(
    file: Path, broken: None, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    (warning,) = check_machine(load_request(file)).warnings
    assert "this machine has a T4" in warning and "on the CPU" in warning
    assert check_machine(load_request(file, ["resources.gpus_per_trial=0"])).warnings == ()
    with pytest.raises(RequestError) as caught:
        check_machine(load_request(file, ["resources.gpus_per_trial=1"]))
    assert "no GPU here: this machine has a T4" in refused(caught)


def test_a_gpu_s_number_formats_are_asked_by_a_plan_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver of a run would hold some of the GPU's memory for as long as it lives."""
    monkeypatch.setattr("sweep.resources.machine.gpu_count", lambda: 2)
    monkeypatch.setattr(
        "sweep.resources.machine.device_of", lambda kind: pytest.fail("it was asked")
    )
    config = load_request(file, ["resources.precision=bfloat16"])
    machine = check_machine(config)
    assert (machine.granted.gpus, machine.granted.concurrent) == (1.0, 2)
    old = SimpleNamespace(facts=lambda: {"device": "Tesla T4", "capability": [7, 5]})
    monkeypatch.setattr("sweep.resources.machine.device_of", lambda kind: old)
    with pytest.raises(
        RequestError, match=r"this machine has a Tesla T4 \(7.5\), which only emulat"
    ):
        check_format(config, machine)


# ---------------------------------------------------------------- what a plan shows


def plan(file: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["plan", str(file), *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_plan_shows_table_folder_memory_disk_and_what_to_type_next(
    file: Path, faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it now raises ImportError
    shown = plan(file, "name=a", "trial.lr=[1e-4, 1e-3]")
    for words in (
        f"table {faces.table} (",
        f"images {faces.images}, found for 40 of 40 rows",
        "GB for a trial's tensors (computed",
        "GB free here",
        "disk: up to",
        "trials at a time, each with",
    ):
        assert words in shown
    last = shown.rstrip().splitlines()[-1]
    assert last == f"next: sweep run {file} name=a 'trial.lr=[1e-4, 1e-3]'"


def test_a_plan_warns_of_a_gpu_that_torch_can_t_use(file: Path, broken: None) -> None:
    assert "warning: this machine has a T4" in plan(file)
    assert "T4" not in plan(file, "resources.gpus_per_trial=0")


def test_a_plan_warns_where_memory_or_disk_will_not_do(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "warning: memory" not in plan(file) and "warning: disk" not in plan(file)
    monkeypatch.setattr("sweep.show.plan.memory_bytes", lambda *arguments: 10**15)
    monkeypatch.setattr("sweep.show.plan.trial_bytes", lambda *arguments: 10**15)
    shown = plan(file)
    assert "warning: memory" in shown and "warning: disk" in shown


def test_computed_activations_are_those_that_torch_keeps_for_a_backward_pass() -> None:
    backbone = load_backbone("none", 0.1)
    for strategy, head in (("full", "linear"), ("block4", "32"), ("head", "linear")):
        model = build_model(TrialConfig(strategy=strategy, head=head, dropout=0), backbone)
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(4, 3, 64, 64))
        saved = sum(size for where, size in kept.items() if where not in parameters)
        computed = 4 * 4 * activations(model, 0.1, 64)
        assert saved <= computed <= 1.3 * saved, (strategy, saved, computed)
