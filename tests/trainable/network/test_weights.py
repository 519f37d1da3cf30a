"""Files of weights as people have them: read whatever is wrapped around them, or refused by what they are."""

import errno
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import open_run
from sweep.request.prepare import check_unchanged, new_backbone, prepare
from sweep.session.extend import Request, extend
from tests.support.bad_zips import of_a_later_version
from tests.support.faces import WIDTH, Faces, sweep_facts
from tests.support.made_runs import create_run, put_on_record
from tests.support.manifests import edit_manifest
from tests.support.unreadable import UNREADABLE
from trainable.errors import RequestError
from trainable.network.model import load_backbone
from trainable.network.weights import imagenet_file

Text = Callable[[pytest.ExceptionInfo[Exception]], str]
State = dict[str, Any]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Narrow convolutions and a small classifier, under torchvision's names."""
    features = load_backbone("none", WIDTH).features
    inputs = features["28.bias"].numel() * 49
    generator = torch.Generator().manual_seed(1)
    sizes = {"0.weight": (8, inputs), "0.bias": (8,), "3.weight": (8, 8), "3.bias": (8,)}
    classifier = {
        f"classifier.{name}": torch.randn(size, generator=generator) for name, size in sizes.items()
    }
    return {f"features.{name}": value for name, value in features.items()} | classifier


@pytest.fixture
def asked(faces: Faces, tmp_path: Path, own_store: Path) -> Callable[..., SweepConfig]:
    """The request for a small sweep on the weights at a path."""

    def ask(path: Path, head: str = "linear") -> SweepConfig:
        model = {"weights": str(path), "width": WIDTH}
        trial = {"strategy": "head", "head": head}
        return check_config(sweep_facts(faces, tmp_path / "runs", trial, model=model), {}, "test")

    return ask


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


# ---------------------------------------------------------------- what is wrapped around them


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


WRAPPED: dict[str, tuple[Callable[[State], object], str]] = {
    "DataParallel": (prefixed("module."), "without the prefix module. of its names"),
    "Lightning": (
        lambda state: {"epoch": 3, "state_dict": prefixed("model.")(state), "loops": {}},
        "from its key state_dict, without the prefix model. of its names",
    ),
    "a net within a DataParallel": (prefixed("module.net."), "without the prefix module.net. of"),
    "torch.compile": (prefixed("_orig_mod."), "without the prefix _orig_mod. of"),
    "a checkpoint by hand": (
        lambda state: {"model_state_dict": state, "loss": torch.tensor(0.1).item()},
        "from its key model_state_dict",
    ),
    "model beside the optimizer's state": (
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2, 3, 3, 3)}}, "param_groups": []},
        },
        "from its key model",
    ),
    "a key in a key": (
        lambda state: {"ckpt": {"state_dict": state}},
        "from its key ckpt.state_dict",
    ),
    "a model with a running average": (
        lambda state: {"state_dict": state, "ema": state},
        "from its key state_dict",
    ),
    "parameters that want gradients": (
        lambda state: {name: nn.Parameter(value) for name, value in state.items()},
        "",
    ),
    "numbers beside the tensors": (lambda state: {"epoch": 3, **state}, ""),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_weights_are_read_as_the_plain_ones_and_said(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path, name: str
) -> None:
    wrap, said = WRAPPED[name]
    plain = load_backbone(str(saved(state, tmp_path / "plain.pth")), WIDTH)
    path = saved(wrap(state), tmp_path / "wrapped.pth")
    backbone, remarks = new_backbone(asked(path))
    assert backbone.digest() == plain.digest() == load_backbone(str(path), WIDTH).digest()
    assert [line for line in remarks if said in line and str(path) in line] or (remarks, said) == (
        (),
        "",
    )


def test_the_convolutions_alone_are_read_under_their_bare_names(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    bare = {n.removeprefix("features."): t for n, t in state.items() if n.startswith("features.")}
    for prefix in ("", "module.", "encoder."):
        backbone, (said,) = new_backbone(asked(saved(prefixed(prefix)(bare), tmp_path / "w.pth")))
        assert torch.equal(backbone.features["28.weight"], bare["28.weight"])
        assert not backbone.classifier
        assert (f"without the prefix {prefix}" if prefix else "names of `features`") in said


@pytest.mark.parametrize("format", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats_are_read_as_float32_and_said(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path, format: torch.dtype
) -> None:
    path = saved({name: value.to(format) for name, value in state.items()}, tmp_path / "w.pth")
    backbone, (said,) = new_backbone(asked(path))
    assert {value.dtype for value in backbone.features.values()} == {torch.float32}
    assert f"{str(format).removeprefix('torch.')} read as float32" in said


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "pytorch_model.bin", "best.pth.tar"])
def test_the_content_says_how_a_file_is_read_and_not_its_name(
    state: State, tmp_path: Path, name: str
) -> None:
    expected = load_backbone(str(saved(state, tmp_path / "plain.pth")), WIDTH).digest()
    safetensors.torch.save_file(state, tmp_path / name)
    assert load_backbone(str(tmp_path / name), WIDTH).digest() == expected
    for new in (True, False):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=new)
        assert load_backbone(str(tmp_path / name), WIDTH).digest() == expected


def test_two_networks_in_a_file_are_refused_with_their_names(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path, refused: Text
) -> None:
    both = prefixed("student.")(state) | prefixed("teacher.")(state)
    for content, words in (
        (both, ["student., teacher."]),
        ({"generator": state, "critic": state}, ["generator, critic"]),
    ):
        with pytest.raises(RequestError) as caught:
            new_backbone(asked(saved(content, tmp_path / "w.pth")))
        for word in [*words, "save only the one you want"]:
            assert word in refused(caught)


def test_the_digest_of_plain_weights_is_that_of_every_run_on_record(
    state: State, tmp_path: Path
) -> None:
    """SHA-256 over torchvision's names and float32 values, convolutions first, each part by name."""
    sha = hashlib.sha256()
    for part in ("features.", "classifier."):
        for name in sorted(n.removeprefix(part) for n in state if n.startswith(part)):
            sha.update(name.encode() + state[part + name].numpy().tobytes())
    assert load_backbone(str(saved(state, tmp_path / "w.pth")), WIDTH).digest() == sha.hexdigest()


# ---------------------------------------------------------------- other networks


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("vgg16_bn", "VGG-16 with batch normalisation (vgg16_bn), not VGG-16"),
        ("vgg19", "VGG-19, not VGG-16"),
        ("vgg19_bn", "VGG-19 with batch normalisation (vgg19_bn)"),
        ("vgg11", "VGG-11"),
        ("resnet18", "a ResNet, not VGG-16"),
        ("alexnet", "AlexNet"),
        ("densenet121", "a DenseNet"),
        ("mobilenet_v3_small", "MobileNet"),
        ("squeezenet1_1", "a SqueezeNet"),
        ("vit_b_16", "a vision transformer"),
    ],
)
def test_another_network_is_refused_by_its_name(
    network: str, said: str, tmp_path: Path, refused: Text
) -> None:
    with torch.device("meta"):
        other = getattr(torchvision.models, network)().state_dict()
    convolutions = {  # one value each tells their names and number of dimensions
        f"module.{name}": torch.zeros([1] * tensor.ndim) for name, tensor in other.items()
    }
    with pytest.raises(RequestError) as caught:
        load_backbone(str(saved(convolutions, tmp_path / "w.pth")), 1.0)
    assert said in refused(caught)


@pytest.mark.parametrize(
    ("network", "said"), [("vgg16_bn", "(vgg16_bn), not VGG-16"), ("vgg19", "VGG-19, not VGG-16")]
)
def test_another_vggs_convolutions_alone_are_known_too(
    network: str, said: str, tmp_path: Path, refused: Text
) -> None:
    with torch.device("meta"):
        other = getattr(torchvision.models, network)().features.state_dict()
    small = {name: torch.zeros([1] * tensor.ndim) for name, tensor in other.items()}
    with pytest.raises(RequestError) as caught:
        load_backbone(str(saved(small, tmp_path / "w.pth")), 1.0)
    assert said in refused(caught)


def test_weights_of_another_width_are_refused_with_theirs(
    state: State, tmp_path: Path, refused: Text
) -> None:
    features = load_backbone("none", 0.25).features
    path = saved({f"features.{n}": t for n, t in features.items()}, tmp_path / "w.pth")
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), 1.0)
    assert "must have shape (64, 3, 3, 3)" in refused(caught)
    assert "model.width=0.25 fits them" in refused(caught)


# ---------------------------------------------------------------- other files


class Whole(nn.Linear):
    """A model saved whole needs its class."""


def in_zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(name, b"{}")
    return buffer.getvalue()


def in_tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name in names:
            opened.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "vgg16.pth": (b"\n<!DOCTYPE html><html>\xe9<body>Sign in</body></html>", "a web page"),
    "error.pth": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML page"),
    "missing.pth": (b"Entry not found", "text that begins 'Entry not found'"),
    "model.safetensors.index.json": (b'{"metadata": {}, "weight_map": {}}', "text that begins"),
    "pointer.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 553433881\n",
        "a Git LFS pointer instead of the file: fetch it with `git lfs pull`",
    ),
    "vgg16.h5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file, as Keras writes"),
    "vgg16.keras": (in_zip("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "model.ckpt.data-00000-of-00001": (bytes(range(256)) * 8, "a TensorFlow checkpoint"),
    "model.ckpt": (bytes(600) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "a TensorFlow checkpoint"),
    "saved_model.pb": (b"\x08\x01\x12" + bytes(range(256)), "a TensorFlow checkpoint"),
    "vgg16.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(600), "an ONNX model"),
    "script.pt": (in_zip("s/data.pkl", "s/code/__torch__.py", "s/constants.pkl"), "TorchScript"),
    "model.pt2": (in_zip("m/exported_program.json"), "a program by torch.export: save"),
    "vgg16.tar": (in_tar("vgg16.pth"), "a tar archive: unpack it"),
    "control.pth": (b"not text\x00\x01", "of an unknown kind"),
    "weights.npz": (in_zip("conv1.npy"), "an archive of NumPy arrays"),
    "photos.pth": (in_zip("vgg16.pth"), "a zip of other files (vgg16.pth): unpack it"),
    "vgg16.pth.gz": (b"\x1f\x8b" + bytes(600), "compressed with gzip: unpack it"),
    "none.pth": (b"", "empty"),
    "noise.pth": (bytes(range(255, 0, -1)) * 3, "of an unknown kind"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_kind_is_refused_by_what_it_is(
    asked: Callable[..., SweepConfig], tmp_path: Path, refused: Text, name: str
) -> None:
    content, said = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        prepare(asked(path))
    line = refused(caught)
    assert f"{path} is {said}" in line or said in line
    assert "weights_only" not in line and "unpickl" not in line.lower()


def test_a_real_torchscript_archive_and_a_whole_model_are_refused_without_their_code(
    tmp_path: Path, refused: Text
) -> None:
    layer = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(layer, tmp_path / "script.pt")
    for path, said in (
        (tmp_path / "script.pt", "TorchScript"),
        (
            saved(Whole(2, 2), tmp_path / "whole.pth"),
            f"it holds {Whole.__module__}.Whole, which only code",
        ),
    ):
        with pytest.raises(RequestError) as caught:
            load_backbone(str(path), WIDTH)
        assert said in refused(caught)
        assert "state_dict()" in refused(caught) and "weights_only" not in refused(caught)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_a_download_that_broke_off_is_said_to_be_cut_short(
    state: State, tmp_path: Path, refused: Text, kind: str
) -> None:
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(RequestError) as caught:
            load_backbone(str(path), WIDTH)
        assert "cut short or damaged" in refused(caught)


def test_a_zip_by_a_later_program_is_said_to_be_damaged(tmp_path: Path, refused: Text) -> None:
    of_a_later_version(path := tmp_path / "w.pth")
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert f"{path} is cut short or damaged" in refused(caught)


def test_a_state_dict_in_a_way_that_only_code_could_read_is_refused_without_it(
    state: State, tmp_path: Path, refused: Text
) -> None:
    torch.save(state, path := tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert f"{path} is more than tensors, or damaged: code from the file is not run" in refused(
        caught
    )


def test_weights_that_can_not_be_read_are_named_with_the_systems_words(
    state: State, tmp_path: Path, refused: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, or halfway through as on a disk that fails: that error is raised here."""
    (path := tmp_path / "w.pth").symlink_to(UNREADABLE)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert f"{path} is unreadable: Input/output error" in refused(caught)
    path.unlink()
    saved(state, path)

    def fails(*given: object, **how: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(RequestError) as caught:
        load_backbone(str(path), WIDTH)
    assert f"{path} is unreadable: {os.strerror(errno.ESTALE)}" in refused(caught)


def test_a_folder_and_a_cached_file_that_is_broken_say_what_to_do(
    tmp_path: Path, refused: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError) as caught:
        load_backbone(str(tmp_path), WIDTH)
    assert "a folder: give the file inside" in refused(caught)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    imagenet_file().parent.mkdir(parents=True)
    imagenet_file().write_bytes(b"<html>")
    with pytest.raises(RequestError) as caught:
        load_backbone("imagenet", 1.0)
    assert "delete it, and it will be downloaded again" in refused(caught)


# ---------------------------------------------------------------- numbers, in requests alone


def spoilt(state: State, name: str, value: float) -> State:
    changed = state[name].clone()
    changed.view(-1)[3] = value
    return state | {name: changed}


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("-inf"), "infinite")])
def test_a_request_on_weights_that_are_not_finite_is_refused_by_the_tensors_name(
    state: State,
    asked: Callable[..., SweepConfig],
    tmp_path: Path,
    refused: Text,
    value: float,
    kind: str,
) -> None:
    path = saved(spoilt(state, "features.17.weight", value), tmp_path / "w.pth")
    with pytest.raises(RequestError) as caught:
        prepare(asked(path))
    line = refused(caught)
    assert f"features.17.weight in {path} is not: 1 of" in line and kind in line


def test_whole_numbers_are_refused_and_so_is_what_float32_can_t_hold(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path, refused: Text
) -> None:
    quantised = {name: (value * 10).to(torch.int8) for name, value in state.items()}
    with pytest.raises(RequestError) as caught:
        prepare(asked(saved(quantised, tmp_path / "w.pth")))
    assert "features.0.weight" in refused(caught) and "int8 (quantised?)" in refused(caught)
    large = spoilt({n: t.double() for n, t in state.items()}, "features.0.weight", 1e300)
    with pytest.raises(RequestError, match="infinite"):
        prepare(asked(saved(large, tmp_path / "w.pth")))


def test_a_classifier_that_nobody_uses_may_be_anything(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    """torchvision's IMAGENET1K_FEATURES has a classifier of NaN."""
    path = saved(spoilt(state, "classifier.3.weight", float("nan")), tmp_path / "w.pth")
    prepare(asked(path))
    with pytest.raises(RequestError, match=r"classifier.3.weight .* is not"):
        prepare(asked(path, head="pretrained"))


def test_a_run_on_record_with_such_weights_goes_on(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    """As it did, whatever new requests are refused for; its extension too, but for what is new in it."""
    path = saved(state, tmp_path / "w.pth")
    config = asked(path)
    prepared = prepare(config)
    for content in (
        spoilt(state, "features.17.weight", float("nan")),
        spoilt(state, "classifier.3.weight", float("nan")),
        {name: (value * 10).to(torch.int8) for name, value in state.items()},
    ):
        torch.save(content, path)
        run = create_run(config, prepared, [])
        digest = load_backbone(str(path), WIDTH).digest()
        edit_manifest(run, lambda facts, digest=digest: facts["digests"].update(weights=digest))  # type: ignore[misc]
        assert check_unchanged(open_run(run.path)) == []
        assert put_on_record(extend(run, Request(epochs=20), ["sweep", "extend"]))
        run.path.rename(tmp_path / f"{len(list(tmp_path.iterdir()))}")


def test_an_extension_that_is_the_first_to_use_the_classifier_is_refused_if_that_is_not_finite(
    state: State, asked: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    path = saved(spoilt(state, "classifier.3.weight", float("nan")), tmp_path / "w.pth")
    config = asked(path)
    run = create_run(config, prepare(config), [])
    space = tmp_path / "space.yaml"
    space.write_text("trial: {head: [linear, pretrained]}")
    with pytest.raises(RequestError, match=r"classifier.3.weight .* is not"):
        extend(run, Request(space=space), ["sweep", "extend"])
    assert open_run(run.path).config == config


# ---------------------------------------------------------------- the order of the checks


def test_data_and_target_are_checked_before_weights_are_fetched_and_the_path_before_all(
    asked: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*arguments: object) -> None:
        raise AssertionError("the weights were fetched")

    monkeypatch.setattr("sweep.request.prepare.read_weights", fetched)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = asked(tmp_path / "none.pth")
    wrong = config.data.model_copy(update={"target": "Smilling"})
    with pytest.raises(RequestError, match=r"there is no file .*none.pth"):
        prepare(config.model_copy(update={"data": wrong}))
    model = config.model.model_copy(update={"weights": "imagenet", "width": 1.0})
    with pytest.raises(RequestError, match="did you mean Smiling"):
        prepare(config.model_copy(update={"data": wrong, "model": model}))


def test_weights_that_do_not_fit_are_refused_before_the_images_are_looked_at(
    asked: Callable[..., SweepConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*arguments: object) -> None:
        raise AssertionError("the images were looked at")

    monkeypatch.setattr("sweep.request.prepare.examine", looked)
    with pytest.raises(RequestError, match=r"lacks features\."):
        prepare(asked(saved({"conv.weight": torch.zeros(3)}, tmp_path / "w.pth")))
