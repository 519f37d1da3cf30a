"""What may be changed of a run on record: resources and places, compared by digest; anything else is refused."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
from typer.testing import CliRunner

from analysis.final_test import final_test
from analysis.judgement import judge
from analysis.pages.report import render
from sweep.__main__ import app
from sweep.on_ray import resolve
from sweep.request.config import check_config, load_config
from sweep.request.open_run import Run, open_run
from sweep.request.overrides import CHANGEABLE, overridden, read_overrides
from sweep.request.prepare import check_unchanged, prepare
from sweep.resources.allocation import Node
from sweep.session.extend import Request, extend
from sweep.session.resume import override
from tests.support.analysis_runs import GOOD, copy_of, make_run
from tests.support.bench import write_weights
from tests.support.faces import Faces, sweep_facts, write_faces, write_images, write_zip
from tests.support.made_runs import create_run, put_on_record
from tests.support.manifests import edit_manifest
from tests.support.project import ROOT
from trainable.errors import RequestError
from trainable.records.manifest import read_manifest
from trainable.records.run_folder import RunFolder
from trainable.show.terminal import PlainConsole

pytestmark = pytest.mark.usefixtures("own_store")
COMMAND = ["sweep", "resume"]
EACH = {
    "resources.gpus_per_trial": 0.0,
    "resources.cpus_per_trial": 2,
    "resources.concurrent": 3,
    "resources.retries": 5,
    "search.time_limit": 90 * 60,
    "guards.hung_after": 45,
    "store.limit": 2 * 10**9,
}
GIVEN = [
    "resources.gpus_per_trial=0",
    "resources.cpus_per_trial=2",
    "resources.concurrent=3",
    "resources.retries=5",
    "search.time_limit=90m",
    "guards.hung_after=45s",
    "store.limit=2GB",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on CPUs whose one trial has finished, with its images and their table beside it; not to be changed."""
    root = tmp_path_factory.mktemp("made")
    make_run(root, [GOOD])
    return root


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run; its images and table stay where they were."""
    return RunFolder(copy_of(made / "smiling", tmp_path / "smiling"))


def ask(run: RunFolder, *given: str) -> list[str]:
    return put_on_record(override(run, read_overrides(given), COMMAND))


def content(run: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def refusal(run: RunFolder, *given: str) -> str:
    """The line of a refusal, which leaves everything as it was."""
    before = content(run)
    with pytest.raises(RequestError) as caught:
        ask(run, *given)
    assert content(run) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- what leaves results as they are


def test_every_key_that_is_no_place_is_changed_and_put_on_record_once(run: RunFolder) -> None:
    before = open_run(run.path)
    lines = ask(run, *GIVEN)
    after = open_run(run.path)
    for key, value in EACH.items():
        section, name = key.split(".")
        assert getattr(getattr(after.config, section), name) == value
        assert any(line.startswith(f"{key}: ") for line in lines)
    assert set(EACH) < set(CHANGEABLE)
    *_, entry = after.manifest.configurations
    assert len(after.manifest.configurations) == len(before.manifest.configurations) + 1
    assert entry.command == tuple(COMMAND)
    assert load_config(run.config) == after.config
    sections = {"resources", "search", "guards", "store"}
    assert after.config.model_dump(exclude=sections) == before.config.model_dump(exclude=sections)
    assert after.manifest.settings == before.manifest.settings


@pytest.mark.parametrize(
    ("given", "stays"), [(GIVEN[:-1], True), (["store.limit=2GB"], False), (GIVEN, False)]
)
def test_what_is_worth_sharing_is_decided_anew_for_another_limit_alone(
    run: RunFolder, given: list[str], stays: bool
) -> None:
    before = read_manifest(run).sharing
    assert before is not None
    ask(run, *given)
    assert read_manifest(run).sharing == (before if stays else None)


def test_the_same_asked_again_writes_nothing(run: RunFolder) -> None:
    """As in a script that every night resumes the run with the same line."""
    given = [*GIVEN, f"data.images={open_run(run.path).config.data.images}"]
    ask(run, *given)
    before = content(run)
    lines = ask(run, *given)
    assert content(run) == before
    assert len(lines) == len(given) and all("as before" in line for line in lines)


def test_limits_are_taken_away_again(run: RunFolder) -> None:
    ask(run, *GIVEN)
    gone = ["search.time_limit=null", "guards.hung_after=off", "store.limit=null"]
    assert ask(run, *gone)[0] == "search.time_limit: 5400s → none"
    config = open_run(run.path).config
    assert (config.search.time_limit, config.guards.hung_after, config.store.limit) == (None,) * 3
    assert config.resources.concurrent == EACH["resources.concurrent"], "it stays changed"


def test_an_extension_and_what_it_changes_are_one_request(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    images = shutil.copytree(open_run(run.path).config.data.images, tmp_path / "moved" / "faces")
    overrides = read_overrides(["resources.concurrent=2", f"data.images={images}"])
    lines = put_on_record(extend(run, Request(trials="+2"), ["sweep", "extend"], overrides))
    opened = open_run(run.path)
    assert len(opened.manifest.configurations) == 2
    assert (opened.config.trials, opened.config.resources.concurrent) == (3, 2)
    assert opened.manifest.image_folder == images
    assert opened.manifest.sharing is None
    assert lines[0] == "1 → 3 settings" and len(lines) == 3


def test_an_extension_that_is_refused_moves_nothing(run: RunFolder, tmp_path: Path) -> None:
    before = content(run)
    for asked, given in (
        (Request(epochs=1), "resources.concurrent=2"),
        (Request(epochs=9), f"data.images={tmp_path}"),
        (Request(), "resources.concurrent=2"),
    ):
        with pytest.raises(RequestError):
            extend(run, asked, COMMAND, read_overrides([given]))
    assert content(run) == before


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "given",
    [
        "trial.lr=0.1",
        "trial.epochs=20",
        "metric=val_auc",
        "data.target=Male",
        "search.trials=30",
        "search.seed=1",
        "asha=off",
        "asha.rungs_of=strategy",
        "resources={concurrent: 2}",
        "resources.precision=float32",
        "resources.concurent=2",
        "nonsense=1",
        "name=other",
    ],
)
def test_any_other_key_is_refused_by_name_with_all_that_may_be_changed(
    run: RunFolder, given: str
) -> None:
    said = refusal(run, given)
    assert given.partition("=")[0] in said
    for key in CHANGEABLE:
        assert key in said
    assert ("did you mean resources.concurrent" in said) == ("concurent" in given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("search.time_limit=8", ["search.time_limit must have a unit", "8s, 8m or 8h"]),
        ("guards.hung_after=30", ["guards.hung_after must have a unit"]),
        ("resources.concurrent=0", ["resources.concurrent", "override resources.concurrent=0"]),
        ("resources.gpus_per_trial=2", ["since a trial trains on one GPU"]),
        ("resources.gpus_per_trial=1/2", ["must stay 0", "trains on CPUs", "last digits"]),
        ("store.limit=much", ["store.limit", "200GB"]),
        ("data.images=s3://bucket/faces", ["data.images must be a path", "s3"]),
        ("data.images=/data/$USER/faces", ["$USER", "write it out"]),
        ("data.images=/nowhere", ["there is no /nowhere"]),
        ("data.table=/nowhere.csv", ["SHA-256", "/nowhere.csv does not exist"]),
        ("model.weights=/nowhere.pth", ["no file /nowhere.pth"]),
        ("resources.concurrent", ["KEY=VALUE"]),
    ],
)
def test_a_value_goes_through_the_checks_of_a_request(
    run: RunFolder, given: str, words: Sequence[str]
) -> None:
    said = refusal(run, given)
    for word in words:
        assert word in said


def test_a_run_on_gpus_stays_on_gpus_and_may_get_another_share_of_one(run: RunFolder) -> None:
    edit_manifest(run, lambda facts: facts["settings"].update(device="cuda"))
    said = refusal(run, "resources.gpus_per_trial=0")
    assert "must be more than 0" in said and "trains on GPUs" in said
    ask(run, "resources.gpus_per_trial=1/4")
    assert open_run(run.path).config.resources.gpus_per_trial == 0.25


# ---------------------------------------------------------------- places


def moved_to(folder: Path, faces: Faces) -> Faces:
    """Its images and table, moved into `folder`; nothing stays behind."""
    folder.mkdir()
    images = Path(shutil.move(faces.images, folder / "pictures"))
    table = Path(shutil.move(faces.table, folder / "labels.csv"))
    return replace(faces, images=images, table=table)


@pytest.fixture
def own(tmp_path: Path) -> Faces:
    return write_faces(tmp_path / "here", 40)


@pytest.fixture
def new(own: Faces, tmp_path: Path) -> RunFolder:
    """A run of which no trial began, on images and a table that are named and may be moved."""
    config = check_config(sweep_facts(own, tmp_path / "runs", {"strategy": "head"}), {}, "test")
    return create_run(config, prepare(config), ["sweep", "run"])


def test_a_finished_run_is_moved_with_all_it_has_and_is_tested_and_reported_there(
    tmp_path: Path,
) -> None:
    old = tmp_path / "old"
    run_path = make_run(old, [GOOD])
    weights = write_weights(tmp_path / "w.safetensors")
    new_place = tmp_path / "new"
    old.rename(new_place)
    run = new_place / run_path.name
    with pytest.raises(RequestError, match=r"sweep resume .*smiling data\.images=PLACE"):
        final_test(run)
    assert any("none of list_attr_celeba.csv" in remark for remark in judge(run).remarks)

    asked = [f"data.images={new_place / 'faces'}", f"model.weights={weights}"]
    done = CliRunner().invoke(app, ["resume", str(run), *asked])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert f"data.images: {old / 'faces'} → {new_place / 'faces'} (40 images" in said
    assert "(the weights that the run began with)" in said
    assert "nothing is left to do" in said

    opened = open_run(run)
    assert opened.manifest.table == new_place / "faces.csv", "it lies beside the images"
    assert opened.settings is not None
    assert opened.settings.images == opened.manifest.image_folder == new_place / "faces"
    assert opened.settings.weights == opened.config.model.weights == str(weights)
    assert check_unchanged(opened) == []
    tested = final_test(run)
    assert tested.opening.result is not None and tested.opening.result.images == 8
    assert judge(run).remarks == ()
    page = render(run)
    assert "can no longer be read" not in page
    assert f"name=smiling-again storage={new_place}" in page, "not where the run was made"


def test_a_run_that_has_not_ended_is_changed_by_its_places_and_then_goes_on(
    new: RunFolder, own: Faces, tmp_path: Path
) -> None:
    there = moved_to(tmp_path / "there", own)
    with pytest.raises(RequestError, match=r"is missing.*sweep resume RUN data.images=PLACE"):
        check_unchanged(open_run(new.path))
    lines = ask(new, f"data.images={there.images}", f"data.table={there.table}")
    opened = open_run(new.path)
    assert check_unchanged(opened) == []
    assert (opened.manifest.image_folder, opened.manifest.table) == (there.images, there.table)
    assert opened.manifest.settings is None
    assert lines == [
        f"data.images: {own.images} → {there.images} (40 images in {there.images} are those that the run began with)",
        f"data.table: {own.table} → {there.table} ({there.table} is the table that the run began with)",
    ]


@pytest.mark.parametrize("inside", ["", "img_align_celeba/img_align_celeba"])
def test_images_are_found_in_a_zip_and_in_a_folder_below(
    new: RunFolder, own: Faces, tmp_path: Path, inside: str
) -> None:
    archive = write_zip(own.images, tmp_path / "faces.zip", inside)
    ask(new, f"data.images={archive}")
    opened = open_run(new.path)
    assert opened.config.data.images == archive
    assert opened.manifest.image_folder == tmp_path / "faces.zip.extracted" / inside
    assert check_unchanged(opened) == []


def test_thumbnails_of_the_same_names_are_not_taken_for_the_images(
    new: RunFolder, own: Faces, tmp_path: Path
) -> None:
    root = tmp_path / "both"
    write_images(root / "a_thumbnails", own.smiling, side=12)
    shutil.copytree(own.images, root / "images")
    ask(new, f"data.images={root}")
    assert read_manifest(new).image_folder == root / "images"


def test_images_in_folders_by_class_are_found_with_them(own: Faces, tmp_path: Path) -> None:
    root = tmp_path / "classes"
    for name, value in (("no", -1), ("yes", 1)):
        (root / name).mkdir(parents=True)
        for file, smiling in zip(own.files, own.smiling, strict=True):
            if smiling == value:
                shutil.copy(own.images / file, root / name)
    facts = sweep_facts(own, tmp_path / "runs", {"strategy": "head"})
    facts["data"] = {"images": str(root), "target": "classes", "image_size": 32}
    config = check_config(facts, {}, "test")
    run = create_run(config, prepare(config), ["sweep", "run"])
    there = tmp_path / "deep" / "below" / "classes"
    there.parent.mkdir(parents=True)
    root.rename(there)
    ask(run, f"data.images={tmp_path / 'deep'}")
    assert read_manifest(run).image_folder == there
    assert "its classes come from folders" in refusal(run, f"data.table={own.table}")


def test_other_images_another_table_and_other_weights_are_refused_and_change_nothing(
    new: RunFolder, own: Faces, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    shutil.copytree(own.images, there)
    last = sorted(own.files)[-1]
    for file in own.files[:3]:
        (there / file).write_bytes((own.images / last).read_bytes())
    assert any(
        words in refusal(new, f"data.images={there}")
        for words in ("has changed or is missing (and 2 more)", "with the SHA-256")
    )
    write_images(tmp_path / "others", [-smiling for smiling in own.smiling])
    assert "with the SHA-256" in refusal(new, f"data.images={tmp_path / 'others'}")
    other = tmp_path / "other.csv"
    other.write_text(own.table.read_text() + "\n")
    assert "other.csv is another" in refusal(new, f"data.table={other}")
    weights = write_weights(tmp_path / "w.safetensors")
    state = safetensors.torch.load_file(weights)
    name = next(iter(state))
    state[name] = state[name] + 1e-3
    safetensors.torch.save_file(state, weights)
    assert "must stay as they were" in refusal(new, f"model.weights={weights}")
    assert "width" in refusal(new, "model.weights=imagenet")


def test_a_table_that_is_not_beside_the_images_any_more_leaves_its_place_as_it_was(
    run: RunFolder, tmp_path: Path
) -> None:
    before = read_manifest(run)
    images = shutil.copytree(before.image_folder, tmp_path / "alone" / "faces")
    (tmp_path / "alone" / "other.csv").write_text("filename,Smiling\n")
    ask(run, f"data.images={images}")
    after = read_manifest(run)
    assert (after.image_folder, after.table) == (images, before.table)


# ---------------------------------------------------------------- the next session


def session_of(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, node: Node, **device: Any
) -> tuple[resolve.Resolved, str]:
    """What the next session resolves on this node, and what it says."""
    look = {"host": node.host, "device": {"device": "a device", **device}}
    fake = SimpleNamespace(nodes=lambda: [node], look_at=lambda *args, **options: [look])
    monkeypatch.setattr(resolve, "cluster", fake)
    screen = StringIO()
    resolved = resolve.resolve(open_run(run.path), PlainConsole(file=screen, width=400), "auto")
    return resolved, screen.getvalue()


def test_other_cpus_change_how_many_trials_run_and_not_their_threads(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_manifest(run, lambda facts: facts["settings"].update(threads=1))
    node = Node("a", "a", 8, 0)
    ask(run, "resources.cpus_per_trial=4", "resources.concurrent=8")
    put_on_record(extend(run, Request(trials="+9"), COMMAND))
    edit_manifest(run, lambda facts: facts.update(sharing={"off": "made for a test"}))
    resolved, said = session_of(run, monkeypatch, node)
    assert (resolved.granted.cpus, resolved.granted.concurrent) == (4, 2)
    assert resolved.settings.threads == 1
    assert "CPUs per trial: 4; their threads stay 1, as at the start" in said
    ask(run, "resources.cpus_per_trial=1")
    resolved, said = session_of(run, monkeypatch, node)
    assert (resolved.granted.concurrent, resolved.settings.threads, said) == (8, 1, "")


@pytest.mark.parametrize(("given", "share"), [("1/4", 0.25), ("1", 1.0), ("auto", 0.5)])
def test_another_share_of_a_gpu_is_what_a_trial_may_take_of_its_memory(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, given: str, share: float
) -> None:
    def on_half_a_gpu(facts: dict[str, Any]) -> None:
        facts["settings"].update(device="cuda", gpu_share=0.5)
        facts["resources"].update(gpus_per_trial=0.5)

    edit_manifest(run, on_half_a_gpu)
    ask(run, f"resources.gpus_per_trial={given}")
    node = Node("a", "a", 8, 2)
    resolved, _ = session_of(run, monkeypatch, node, capability=[9, 0])
    assert resolved.granted.gpus == resolved.settings.gpu_share == share


def test_a_refusal_of_a_key_does_not_even_hold_the_run(
    run: RunFolder, refused: Callable[[pytest.ExceptionInfo[Exception]], str]
) -> None:
    before = content(run)
    for command in (["resume", str(run.path)], ["extend", str(run.path), "--epochs", "9"]):
        done = CliRunner().invoke(app, [*command, "trial.lr=0.1"])
        assert isinstance(done.exception, RequestError)
        assert "resources.concurrent" in str(done.exception)
    assert content(run) == before


def test_the_documents_and_the_help_of_both_commands_name_all_that_may_be_changed() -> None:
    page = (ROOT / "docs" / "how-to" / "continue-a-run.md").read_text()
    assert all(f"`{key}`" in page for key in CHANGEABLE)
    for command in ("resume", "extend"):
        said = "".join(
            CliRunner().invoke(app, [command, "--help"], terminal_width=999).output.split()
        )
        for key in CHANGEABLE:
            assert key in said


def test_a_run_of_which_no_session_began_may_still_get_another_device(new: RunFolder) -> None:
    opened: Run = open_run(new.path)
    config = overridden(opened, opened.config, read_overrides(["resources.gpus_per_trial=1"]))
    assert config.resources.gpus_per_trial == 1
