"""A corpus of wrong requests: each ends with exit code 2 and one line that names the place, and changes nothing.

The commands run in this process, on real files that each case makes.
"""

import io
import os
import pickle
import shutil
import stat
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import analysis.__main__
import sweep.__main__
from tests.support.faces import write_faces
from trainable.network.model import feature_layers
from trainable.records.files import read_json, write_json

Change = Callable[["Place"], None]
SECONDS = 10.0


@dataclass
class Place:
    """A folder with a sweep.yaml that is right, and its images and table; a case makes something of it wrong."""

    root: Path
    config: dict[str, Any] = field(default_factory=dict)
    text: str | bytes | None = None
    """Instead of `config`."""
    overrides: list[str] = field(default_factory=list)

    @property
    def images(self) -> Path:
        return self.root / "faces"

    @property
    def table(self) -> Path:
        return self.root / "faces.csv"

    def image(self, number: int = 3) -> Path:
        return sorted(self.images.iterdir())[number]

    def set(self, dotted: str, value: object) -> None:
        """Change one key."""
        *parents, last = dotted.split(".")
        inner = self.config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value

    def rows(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change the table."""
        change(pd.read_csv(self.table)).to_csv(self.table, index=False)

    def write(self) -> Path:
        path = self.root / "sweep.yaml"
        if isinstance(self.text, bytes):
            path.write_bytes(self.text)
        else:
            path.write_text(yaml.safe_dump(self.config) if self.text is None else self.text)
        return path


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images and their table."""
    root = tmp_path_factory.mktemp("right")
    write_faces(root, 20)
    return root


@pytest.fixture
def place(right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    root = tmp_path / "place"
    shutil.copytree(right, root)
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    config = {
        "name": "run",
        "storage": str(root / "runs"),
        "data": {
            "images": str(root / "faces"),
            "table": str(root / "faces.csv"),
            "target": "Smiling",
            "image_size": 32,
        },
        "model": {"weights": "none", "width": 0.05},
        "trial": {
            "strategy": ["head", "block5"],
            "lr": [1e-4, 1e-3],
            "head": "linear",
            "epochs": 2,
        },
        "search": {"method": "grid"},
    }
    return Place(root, config)


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file below `root` with its content, but locks, and the numbers that tell who held a run."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if not path.is_symlink() and path.suffix != ".lock" and "sessions" not in path.parts
    }


def refusal(
    command: Callable[[], None],
    arguments: Sequence[object],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Run a command that must refuse; its one line."""
    before, began = tree(root), time.monotonic()
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command()
    seconds = time.monotonic() - began
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert "Traceback" not in err
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert tree(root) == before
    assert seconds < SECONDS
    return err


# ---------------------------------------------------------------- configurations and overrides


def given(text: str | bytes) -> Change:
    def change(place: Place) -> None:
        place.text = text

    return change


def key(dotted: str, value: object) -> Change:
    return lambda place: place.set(dotted, value)


def override(*texts: str) -> Change:
    return lambda place: place.overrides.extend(texts)


def huge(place: Place) -> None:
    for name in ("lr", "weight_decay"):
        place.set(f"trial.{name}", [number / 1e6 for number in range(1, 1000)])


CONFIGURATIONS: dict[str, tuple[Change, str]] = {
    "empty": (given(""), "must hold keys"),
    "a list": (given("- name\n- data\n"), "must hold keys"),
    "a word": (given("smiling\n"), "must hold keys"),
    "a tab": (given("name: run\n\tdata: 3\n"), "line 2"),
    "an open bracket": (given("name: [run\n"), "must be YAML"),
    "an unknown anchor": (given("name: *run\n"), "must be YAML"),
    "a key twice": (given("name: a\nname: b\n"), "given twice"),
    "latin-1": (given("name: caf\xe9\n".encode("latin-1")), "UTF-8"),
    "a picture": (given(b"\x89PNG\r\n\x1a\n\0\0"), "must be"),
    "two documents": (given("name: a\n---\nname: b\n"), "must be YAML"),
    "a python object": (given("name: !!python/object/apply:os.system [echo]\n"), "must be YAML"),
    "an unknown section": (key("serach", {"method": "grid"}), "did you mean search?"),
    "an unknown key": (key("search.trails", 3), "did you mean trials?"),
    "an unknown setting": (key("trial.learning_rate", 3), "learning_rate"),
    "no data": (lambda place: place.config.pop("data"), "data must be given"),
    "no target": (lambda place: place.config["data"].pop("target"), "data.target must be given"),
    "a name with a slash": (key("name", "../run"), "name must consist of the letters A to Z"),
    "an ASHA that is on": (override("asha=on"), "asha must be off, or a section with keys"),
    "a split of itself": (override("data.split=split"), "data.split must be official, or"),
    "resources in a word": (override("resources=auto"), "resources must be a section with keys"),
    "an empty name": (key("name", ""), "name"),
    "an unknown method": (key("search.method", "bayes"), "search.method"),
    "an unknown metric": (key("metric", "val_acuracy"), "metric"),
    "an unknown strategy": (key("trial.strategy", ["head", "block9"]), "strategy"),
    "an unknown augmentation": (key("trial.augmentation", "flip_jiter"), "augmentation"),
    "a negative rate": (key("trial.lr", -1e-3), "lr"),
    "a rate in words": (key("trial.lr", "small"), "lr"),
    "an infinite rate": (key("trial.lr", float("inf")), "lr"),
    "a rate that is no number": (key("trial.lr", float("nan")), "lr"),
    "an empty list": (key("trial.lr", []), "lr"),
    "a value twice": (key("trial.lr", [1e-3, 0.001]), "lr"),
    "no epochs": (key("trial.epochs", 0), "epochs"),
    "epochs as a list": (key("trial.epochs", [5, 10]), "epochs"),
    "half an epoch": (key("trial.epochs", 2.5), "epochs"),
    "a batch of none": (key("trial.batch_size", 0), "batch_size"),
    "a head of words": (key("trial.head", "big"), "head"),
    "a head without units": (key("trial.head", "0"), "head"),
    "a dropout of two": (key("trial.dropout", 2), "dropout"),
    "a range in a grid": (key("trial.lr", {"loguniform": [1e-5, 1e-3]}), "grid needs lists"),
    "a range upside down": (key("trial.lr", {"loguniform": [1e-3, 1e-5]}), "lr"),
    "a log range from nought": (key("trial.lr", {"loguniform": [0, 1e-3]}), "lr"),
    "a range of an unknown kind": (key("trial.lr", {"normal": [0, 1]}), "lr"),
    "a huge grid": (huge, "at most"),
    "no number of trials": (key("search", {"method": "tpe"}), "search.trials"),
    "no trials": (key("search", {"method": "tpe", "trials": 0}), "search.trials"),
    "a first point outside": (
        key("search.first", [{"lr": 7.0}]),
        "search.first",
    ),
    "a duration in words": (key("search.time_limit", "soon"), "time_limit"),
    "a duration without a unit": (key("search.time_limit", 10), "10s, 10m or 10h"),
    "a duration without end": (override("search.time_limit=.inf"), "leave it out"),
    "a patience without a unit": (key("guards.hung_after", 30), "30s, 30m or 30h"),
    "an ASHA that can prune nothing": (key("asha", {"grace_period": 9}), "it can prune nothing"),
    "storage at an address": (key("storage", "s3://bucket/runs"), "is an address (s3)"),
    "storage in a variable": (key("storage", "$NOBODY_SET_THIS/runs"), "not expanded"),
    "storage of nobody": (key("storage", "~nobody-of-this-name/runs"), "is unknown here"),
    "storage in a file": (
        lambda place: place.set("storage", str(place.table / "runs")),
        "can't be created: Not a directory",
    ),
    "images at an address": (key("data.images", "https://host/faces.zip"), "is an address (https)"),
    "a name that YAML takes for a number": (override("name=08"), "put it in quotes"),
    "a name of 250 letters": (key("name", "n" * 250), "File name too long"),
    "a run that is there": (
        lambda place: (place.root / "runs" / "run").mkdir(parents=True),
        "must be new, but it exists",
    ),
    "more CPUs than there are": (key("resources.cpus_per_trial", 10_000), "hold a whole trial"),
    "a size in words": (key("store.limit", "plenty"), "store.limit"),
    "two thirds of a GPU": (key("resources.gpus_per_trial", 0.66), "gpus_per_trial"),
    "no CPU": (key("resources.cpus_per_trial", 0), "cpus_per_trial"),
    "a reduction by one": (key("asha", {"reduction_factor": 1}), "reduction_factor"),
    "an image of a pixel": (key("data.image_size", 1), "image_size"),
    "a split of more than all": (key("data.split", {"validation": 0.7, "test": 0.7}), "split"),
    "an unknown split": (key("data.split", "mine"), "split"),
    "a group that nobody knows": (key("data.split", {"group": "Smilng"}), "did you mean Smiling"),
    "identities without their file": (key("data.split", {"group": "identity"}), "identity_CelebA"),
    "official parts and a group": (
        key("data.split", {"official": True, "group": "Male"}),
        "official parts are given",
    ),
    "a patience in words": (key("guards.hung_after", "long"), "guards.hung_after"),
    "less than no patience": (key("guards.hung_after", -5), "guards.hung_after"),
    "an override without a value": (override("trial.epochs"), "KEY=VALUE"),
    "an override of nothing": (override("=3"), "KEY=VALUE"),
    "an override of an unknown key": (override("trial.epoch=3"), "epoch"),
    "an override that is no YAML": (override("trial.lr=[1e-3"), "must be YAML"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_wrong_configuration_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, said = CONFIGURATIONS[name]
    change(place)
    arguments = ["plan", place.write(), *place.overrides]
    assert said in refusal(sweep.__main__.main, arguments, place.root, monkeypatch, capsys)


# ---------------------------------------------------------------- tables, images, archives, weights


def content(number: int, made: bytes) -> Change:
    return lambda place: void(place.image(number).write_bytes(made))


def void(_: object) -> None: ...


def jpeg(side: int = 36) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb(place: Place) -> None:
    """A small PNG that would take gigabytes to decode."""
    path = place.image(3)
    Image.new("1", (20_000, 20_000)).save(path, "PNG", compress_level=1)


def loop(place: Place) -> None:
    path = place.image(3)
    path.unlink()
    path.symlink_to(path.name)


def folder_instead(place: Place) -> None:
    path = place.image(3)
    path.unlink()
    path.mkdir()


def nothing_there(place: Place) -> None:
    for path in place.images.iterdir():
        path.unlink()


def archive(*members: tuple[str, bytes], encrypted: bool = False, link: bool = False) -> Change:
    """The images as a zip with these members on top."""

    def change(place: Place) -> None:
        path = place.root / "faces.zip"
        with zipfile.ZipFile(path, "w") as opened:
            for image in sorted(place.images.iterdir()):
                opened.write(image, image.name)
            for name, made in members:
                info = zipfile.ZipInfo(name)
                if link:
                    info.external_attr = (stat.S_IFLNK | 0o777) << 16
                opened.writestr(info, made)
        if encrypted:
            made_ = bytearray(path.read_bytes())
            at = made_.rindex(b"PK\x01\x02")
            made_[at + 8] |= 1  # the flag in the directory
            path.write_bytes(bytes(made_))
        place.set("data.images", str(path))

    return change


def half_archive(place: Place) -> None:
    archive()(place)
    path = place.root / "faces.zip"
    path.write_bytes(path.read_bytes()[:3000])


def zip_bomb(place: Place) -> None:
    """A member that says of itself that it is larger than any disk."""
    archive()(place)
    with zipfile.ZipFile(place.root / "faces.zip", "a") as opened:
        opened.writestr("more.jpg", b"\0" * 1000)
        opened.filelist[-1].file_size = 10**15


def weights(name: str, made: bytes) -> Change:
    def change(place: Place) -> None:
        (place.root / name).write_bytes(made)
        place.set("model.weights", str(place.root / name))

    return change


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hostile-code-ran",)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def state(width: float) -> dict[str, torch.Tensor]:
    layers = feature_layers(width).state_dict()
    return {f"features.{name}": torch.zeros(meta.shape) for name, meta in layers.items()}


FILES: dict[str, tuple[Change, str]] = {
    # tables
    "no table": (lambda place: place.table.unlink(), "data.table"),
    "an empty table": (lambda place: void(place.table.write_text("")), "must be a table"),
    "a head alone": (
        lambda place: void(place.table.write_text("filename,Smiling\n")),
        "must have rows",
    ),
    "a table of bytes": (
        lambda place: void(place.table.write_bytes(bytes(range(256)))),
        "faces.csv",
    ),
    "a table in UTF-16 without its mark": (
        lambda place: void(place.table.write_text(place.table.read_text(), encoding="utf-16-le")),
        "UTF-16",
    ),
    "a column misspelt": (key("data.target", "Smilling"), "Smiling"),
    "no column of names": (
        lambda place: place.rows(lambda f: f.drop(columns="filename")),
        "file names",
    ),
    "one class": (lambda place: place.rows(lambda f: f.assign(Smiling=1)), "two values"),
    "three classes": (
        lambda place: place.rows(lambda f: f.assign(Smiling=[0, 1, 2, 1] * 5)),
        "two values",
    ),
    "a label that is none": (
        lambda place: place.rows(lambda f: f.assign(Smiling=f["Smiling"].mask(f.index == 0))),
        "row 1",
    ),
    "a row twice": (
        lambda place: place.rows(lambda f: pd.concat([f, f.iloc[:1]])),
        "unique",
    ),
    "a positive value that is none": (key("data.positive", "yes"), "data.positive"),
    "too few images": (lambda place: place.rows(lambda f: f.iloc[:4]), "images"),
    "an official split that is not there": (key("data.split", "official"), "official"),
    "a table that is a folder": (key("data.table", "/"), "data.table"),
    # images
    "no folder of images": (key("data.images", "/nowhere/faces"), "/nowhere/faces"),
    "a folder without the images": (
        nothing_there,
        "images that the table names",
    ),
    "images that is a text": (
        lambda place: place.set("data.images", str(place.table)),
        "folder or a zip",
    ),
    "an image gone": (lambda place: place.image(5).unlink(), "data.missing=drop"),
    "an image of no bytes": (content(3, b""), "is empty"),
    "half an image": (content(3, jpeg()[:300]), "000004.jpg"),
    "a page instead of an image": (content(3, b"<html>not found</html>"), "format is unknown"),
    "an image that explodes": (bomb, "000004.jpg"),
    "a link to itself": (loop, "000004.jpg"),
    "a folder of an image's name": (
        folder_instead,
        "000004.jpg",
    ),
    # archives
    "half a zip": (half_archive, "zip"),
    "a zip that climbs out": (archive(("../../evil.jpg", b"x")), "stay inside"),
    "a zip from the root": (archive(("/etc/evil.jpg", b"x")), "stay inside"),
    "a zip with a link": (archive(("way.jpg", b"/etc/passwd"), link=True), "no links"),
    "an encrypted zip": (archive(("more.jpg", b"x"), encrypted=True), "encrypted"),
    "a zip larger than the disk": (zip_bomb, "GB free"),
    # weights
    "no weights": (key("model.weights", "/nowhere/vgg16.pth"), "/nowhere/vgg16.pth"),
    "weights with code": (weights("vgg16.pth", pickle.dumps(Hostile())), "whose code is not run"),
    "weights with code, by torch": (
        weights("vgg16.pth", saved({"features": Hostile()})),
        "posix.system, which only code from the file could create",
    ),
    "weights that are a page": (weights("vgg16.pth", b"<html>sign in</html>"), "web page"),
    "weights that are a Git LFS pointer": (
        weights("vgg16.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
        "git lfs pull",
    ),
    "weights of Keras": (weights("vgg16.h5", b"\x89HDF\r\n\x1a\n" + bytes(99)), "Keras"),
    "weights that are NaN": (
        weights("vgg16.pth", saved({n: t * float("nan") for n, t in state(0.05).items()})),
        "features.0.weight",
    ),
    "weights of whole numbers": (
        weights("vgg16.pth", saved({n: t.to(torch.int8) for n, t in state(0.05).items()})),
        "int8",
    ),
    "weights at an address": (key("model.weights", "https://host/vgg16.pth"), "address (https)"),
    "weights in a folder": (key("model.weights", "/"), "a folder: give the file inside"),
    "weights of no bytes": (weights("vgg16.safetensors", b""), "vgg16.safetensors"),
    "half the weights": (weights("vgg16.pth", saved(state(0.05))[:-5000]), "vgg16.pth"),
    "weights of another width": (weights("vgg16.pth", saved(state(0.1))), "must have shape"),
    "weights of another network": (
        weights("resnet.pth", saved({"conv1.weight": torch.zeros(3)})),
        "lacks features.",
    ),
    "weights that are a list": (weights("vgg16.pth", saved([1, 2])), "state dict"),
    "a pretrained head of none": (key("trial.head", "pretrained"), "head: pretrained"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")  # Pillow's and zipfile's, about what is damaged
def test_a_wrong_file_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, said = FILES[name]
    change(place)
    arguments = ["plan", place.write()]
    assert said in refusal(sweep.__main__.main, arguments, place.root, monkeypatch, capsys)
    assert not Path("hostile-code-ran").exists()


def test_what_is_merely_unusual_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and kinds of images that people have: all of them make a plan."""
    odd = ["a b.jpg", "it's.jpg", 'q"uote.jpg', "naïve 笑.jpg", "comma,.jpg"]
    frame = pd.read_csv(place.table)
    for number, name in enumerate(odd):
        place.image(0).rename(place.images / f"~{number}.jpg")
        frame.loc[number, "filename"] = name
    for number, name in enumerate(odd):
        (place.images / f"~{number}.jpg").rename(place.images / name)
    frame.to_csv(place.table, index=False)
    grey = np.full((40, 30), 90, dtype=np.uint8)
    Image.fromarray(grey).save(place.images / "000010.jpg")
    Image.new("CMYK", (30, 40)).save(place.images / "000011.jpg")
    Image.new("P", (30, 40)).save(place.images / "000012.jpg", "PNG", transparency=0)
    Image.fromarray(np.full((40, 30), 40_000, dtype=np.uint16)).save(
        place.images / "000013.jpg", "PNG"
    )
    Image.new("RGB", (1, 1)).save(place.images / "000014.jpg")
    frames = [Image.new("RGB", (30, 40), colour) for colour in ("red", "blue")]
    frames[0].save(place.images / "000015.jpg", "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(sys, "argv", ["sweep", "plan", str(place.write())])
    with pytest.raises(SystemExit) as ended:
        sweep.__main__.main()
    assert ended.value.code == 0, capsys.readouterr().err


# ---------------------------------------------------------------- run folders and command lines


def damaged(file: str, made: bytes | None) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (path,) = run.glob(file) if "*" not in file else list(run.glob(file))[:1]
        path.unlink() if made is None else path.write_bytes(made)

    return change


def manifest(**facts: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        write_json(run / "manifest.json", read_json(run / "manifest.json") | facts)

    return change


def no_weights(run: Path) -> None:
    for path in run.glob("trials/*/best-*.safetensors"):
        path.unlink()


def nobody_finished(run: Path) -> None:
    for path in run.glob("trials/*/status.json"):
        write_json(path, read_json(path) | {"status": "failed"})


def nobody_pruned(run: Path) -> None:
    for path in run.glob("trials/*/status.json"):
        facts = read_json(path)
        if facts["status"] == "pruned":
            write_json(path, facts | {"status": "finished"})


RUNS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "a list of runs in a file": (
        lambda run: None,
        ["sweep", "status", "--storage", "RUN/manifest.json"],
        "--storage must be a folder of runs",
    ),
    "no run": (shutil.rmtree, ["sweep", "status", "RUN"], "run folder"),
    "another folder": (damaged("manifest.json", None), ["sweep", "resume", "RUN"], "run folder"),
    "a newer format": (manifest(format_version=99), ["sweep", "status", "RUN"], "format_version"),
    "no format": (manifest(format_version=None), ["sweep", "resume", "RUN"], "format_version"),
    "half a manifest": (
        damaged("manifest.json", b'{"a": '),
        ["sweep", "status", "RUN"],
        "manifest",
    ),
    "a manifest changed by hand": (
        manifest(target="Male"),
        ["sweep", "status", "RUN"],
        "it was changed since",
    ),
    "another metric": (
        lambda run: (run / "sweep.yaml").write_text(
            (run / "sweep.yaml").read_text().replace("metric: val_accuracy", "metric: val_loss")
        ),
        ["analysis", "results", "RUN"],
        "it was changed",
    ),
    "half a configuration": (
        damaged("sweep.yaml", b"name: ["),
        ["analysis", "results", "RUN"],
        "sweep.yaml",
    ),
    "a status of no kind": (
        damaged("trials/*/status.json", b'{"status": "?"}'),
        ["sweep", "status", "RUN"],
        "status.json",
    ),
    "settings of nobody": (
        damaged("trials/*/config.json", b"{}"),
        ["analysis", "results", "RUN"],
        "config.json",
    ),
    "a row that is none": (
        damaged("trials/*/epochs.jsonl", b"nothing\n{}\n"),
        ["analysis", "report", "RUN"],
        "epochs.jsonl",
    ),
    "half a split": (
        damaged("split.parquet", b"PAR1"),
        ["sweep", "status", "RUN"],
        "split.parquet",
    ),
    "a picture of no kind": (
        lambda run: None,
        ["analysis", "plots", "RUN", "--format", "bmp"],
        "--format must be",
    ),
    "extended by nothing": (lambda run: None, ["sweep", "extend", "RUN"], "--trials +12"),
    "extended backwards": (
        lambda run: None,
        ["sweep", "extend", "RUN", "--epochs", "1"],
        "--epochs",
    ),
    "an audit of none": (
        lambda run: None,
        ["sweep", "extend", "RUN", "--audit", "0"],
        "at least 1",
    ),
    "an audit where nothing was pruned": (
        nobody_pruned,
        ["sweep", "extend", "RUN", "--audit", "3"],
        "no trial was pruned",
    ),
    "an audit of a word": (
        lambda run: None,
        ["sweep", "extend", "RUN", "--audit", "all"],
        "valid integer",
    ),
    "an option that is none": (
        lambda run: None,
        ["sweep", "resume", "RUN", "--storelimit", "1GB"],
        "`sweep resume --help`",
    ),
    "no run at all": (lambda run: None, ["analysis", "report"], "missing argument 'RUN"),
    "a command that is none": (
        lambda run: None,
        ["analysis", "foretell", "RUN"],
        "no such command 'foretell'",
    ),
    "images that are not there": (
        lambda run: None,
        ["analysis", "predict", "RUN", "nowhere.jpg"],
        "there is no nowhere.jpg",
    ),
    "a folder without images": (
        lambda run: None,
        ["analysis", "predict", "RUN", "RUN"],
        "has none",
    ),
    "predictions of another kind": (
        lambda run: None,
        ["analysis", "predict", "RUN", "face.jpg", "--out", "said.txt"],
        "--out must be a file that ends in .csv or .json",
    ),
    "a winner whose weights are gone": (
        no_weights,
        ["analysis", "predict", "RUN", "face.jpg"],
        "are missing: only the best trials keep theirs",
    ),
    "no winner to ask": (
        nobody_finished,
        ["analysis", "predict", "RUN", "face.jpg"],
        "must have a winner",
    ),
    "no winner to export": (
        nobody_finished,
        ["analysis", "export", "RUN", "--model", "winner.onnx"],
        "must have a winner",
    ),
    "weights of no winner": (
        no_weights,
        ["analysis", "export", "RUN", "--model", "winner.safetensors"],
        "are missing: only the best trials keep theirs",
    ),
    "a model of another kind": (
        lambda run: None,
        ["analysis", "export", "RUN", "--model", "winner.pth"],
        "--model must be a file that ends in .safetensors or .onnx",
    ),
    "an export of nothing": (lambda run: None, ["analysis", "export", "RUN"], "exactly one of"),
    "a store without limits": (
        lambda run: None,
        ["sweep", "resume", "RUN", "--store-limit", "much"],
        "--store-limit",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_run_folder_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, (program, *arguments), said = RUNS[name]
    change(run)
    main = {"sweep": sweep.__main__.main, "analysis": analysis.__main__.main}[program]
    filled = [argument.replace("RUN", str(run)) for argument in arguments]
    assert said in refusal(main, filled, run.parent, monkeypatch, capsys)


def test_the_corpus_is_large() -> None:
    assert len(CONFIGURATIONS) + len(FILES) + len(RUNS) >= 60
