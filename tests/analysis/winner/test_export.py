"""The exported winner is whole: without this project it says the same, and its card says what it is."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torchvision.models import vgg
from typer.testing import CliRunner

import analysis
from analysis.__main__ import app
from analysis.final_test import final_test
from analysis.winner.card import is_celeba, safetensors_snippet
from analysis.winner.export import export_winner
from analysis.winner.onnx_file import TOLERANCE, onnx_bytes
from tests.support.analysis_runs import set_status
from tests.support.manifests import edit_manifest, small_manifest
from trainable.config import TrialConfig
from trainable.data.views import normalise
from trainable.errors import RequestError
from trainable.network.model import build_model, load_backbone
from trainable.records.files import read_json, sha256_of, write_json
from trainable.records.manifest import read_manifest
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder

RUN = CliRunner()
WITHOUT = """
import sys
for name in ("trainable", "sweep", "analysis", *{more}):
    sys.modules[name] = None  # importing it raises ImportError
"""


def snippet_of(card: Path) -> str:
    return card.read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.whole
@pytest.mark.parametrize(("kind", "more"), [("safetensors", ("onnx",)), ("onnx", ("torch",))])
def test_the_cards_snippet_predicts_the_same_without_this_project(
    run: Path, tmp_path: Path, kind: str, more: tuple[str, ...]
) -> None:
    winner = analysis.load_winner(run)
    face = (
        winner.settings.images
        / winner.run.folder.trial(winner.winner.trial_id).predictions(winner.winner.epoch)["file"][
            0
        ]
    )
    shutil.copy(face, tmp_path / "face.jpg")
    _, card = export_winner(run, tmp_path / f"winner.{kind}")
    snippet = snippet_of(card)
    assert len(snippet.splitlines()) <= 10
    program = WITHOUT.format(more=more) + snippet
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(
        winner.predict(face)["probability"][0], abs=TOLERANCE
    )


def test_a_safetensors_file_holds_frozen_and_trained_layers_and_how_to_use_them(
    run: Path, tmp_path: Path
) -> None:
    path, _ = export_winner(run, tmp_path / "winner.safetensors")
    winner, backbone = analysis.load_winner(run), load_backbone("none", 0.05)
    (kept,) = (run / "trials" / winner.winner.trial_id).glob("best-*.safetensors")
    with safe_open(path, "pt") as file, safe_open(kept, "pt") as trained:
        names, kept_names = set(file.keys()), set(trained.keys())
        assert {f"features.{name}" for name in backbone.features} < names
        for name in names:
            own = name not in kept_names
            expected = backbone.features[name[9:]] if own else trained.get_tensor(name)
            assert torch.equal(file.get_tensor(name), expected)
        facts = file.metadata()
    assert json.loads(facts["classes"]) == ["-1", "1"]
    assert (facts["image_size"], facts["split_sha256"]) == ("32", sha256_of(run / "split.parquet"))
    assert json.loads(facts["mean"]) == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("size", [32, 100, 224, 448])
def test_the_onnx_network_takes_any_batch_of_pixels_and_equals_torchvisions_vgg(size: int) -> None:
    """Of maps that are smaller than VGG's pooling, as large, and larger."""
    torch.manual_seed(size)
    config = TrialConfig(strategy="block5", head="64-16")
    model = build_model(config, load_backbone("none", 0.05)).eval()
    channels = [
        m.out_channels if isinstance(m, torch.nn.Conv2d) else "M"
        for m in model.features
        if hasattr(m, "kernel_size")
    ]
    with torch.device("meta"):
        witness = vgg.VGG(vgg.make_layers(channels))
    witness.classifier = model.classifier
    witness.load_state_dict(model.state_dict(), assign=True)
    content = onnx_bytes(model, size, {"target": "Smiling"})
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"target": "Smiling"}
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    for batch in (1, 3):
        pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        logit, probability = session.run(None, {"pixels": pixels.numpy()})
        with torch.no_grad():
            expected = witness.eval()((pixels / 255 - mean) / std).squeeze(1)
        assert logit.shape == probability.shape == (batch,)
        np.testing.assert_allclose(logit, expected, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(probability, expected.sigmoid(), atol=TOLERANCE, rtol=0)


def test_the_snippet_builds_a_head_of_hidden_layers_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Linear layers, ReLU and dropout; the picture is of the network's own size, so that nothing is resized."""
    torch.manual_seed(0)
    config = TrialConfig(strategy="block5", head="64-16")
    model = build_model(config, load_backbone("none", 0.05)).eval()
    save_file(model.state_dict(), tmp_path / "winner.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    exec(safetensors_snippet("winner.safetensors", 32, model), {})
    with Image.open("face.jpg") as image:
        decoded = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    with torch.no_grad():
        expected = model(normalise(decoded[None])).sigmoid().item()
    assert float(capsys.readouterr().out) == pytest.approx(expected, abs=TOLERANCE)


def test_a_winner_beyond_what_onnx_can_hold_is_refused_with_its_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a head of many hidden units is; 4 bytes a parameter."""
    from analysis.winner import onnx_file

    class Large:
        def parameters(self) -> list[torch.Tensor]:
            return [torch.empty(600_000_000, device="meta")]

    with pytest.raises(RequestError) as caught:
        onnx_bytes(Large(), 32, {})  # type: ignore[arg-type]
    assert str(caught.value) == (
        "an .onnx file holds at most 2 GB, but the winner has 2.4 GB; export a .safetensors file"
    )
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 1_000)
    with pytest.raises(RequestError, match=r"an \.onnx file holds at most 2 GB"):
        export_winner(run, tmp_path / "winner.onnx")
    assert list(tmp_path.glob("*winner*")) == []


def test_a_wrong_network_is_not_given_out(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis.winner import onnx_file

    monkeypatch.setattr(onnx_file, "MEAN", (0.0, 0.0, 0.0))  # normalisation forgotten
    with pytest.raises(RequestError, match="must give the winner's probabilities within 1e-05"):
        export_winner(run, tmp_path / "winner.onnx")
    assert list(tmp_path.glob("*winner*")) == []


def test_the_card_says_what_the_file_is_and_how_good(run: Path, tmp_path: Path) -> None:
    path, card = export_winner(run, tmp_path / "a.safetensors")
    rows = dict(re.findall(r"^\| (.+?) \| (.*) \|$", card.read_text(), re.MULTILINE))
    winner = analysis.load_winner(run)
    row = winner.run.by_id[winner.winner.trial_id].rows()[winner.winner.epoch - 1]
    assert rows["class 0"] == "-1" and rows["class 1"].startswith("1: ")
    assert rows["image size"].startswith("32 × 32 px") and "0.485" in rows["normalisation"]
    assert rows["split"].endswith(sha256_of(run / "split.parquet"))
    assert rows["SHA-256 of the file"] == sha256_of(path)
    assert rows["validation accuracy"].startswith(f"{row.val_accuracy * 100:.2f}")
    assert "95 % Wilson interval" in rows["validation accuracy"]
    assert rows["test accuracy"] == "not known: the test set has not been opened"
    assert "terms" not in rows
    result = final_test(run).opening.result
    assert result is not None
    _, card = export_winner(run, tmp_path / "b.onnx")
    rows = dict(re.findall(r"^\| (.+?) \| (.*) \|$", card.read_text(), re.MULTILINE))
    assert rows["test accuracy"].startswith(f"{result.accuracy * 100:.2f}")
    assert rows["openings"] == "The test set has been opened once."
    assert "inside the file" in rows["normalisation"]
    assert "before the network" in rows["image size"]


def test_the_card_does_not_know_the_test_accuracy_of_another_winner_or_of_half_an_opening(
    run: Path, tmp_path: Path
) -> None:
    final_test(run)
    whole = read_json(run / "test.json")
    tested = whole["winner"]["trial_id"]
    whole["ledger"][0].update(result=None, completed=None)
    write_json(run / "test.json", whole)
    set_status(run, tested, Status.FAILED)
    _, other = export_winner(run, tmp_path / "other.safetensors")
    assert (
        f"| test accuracy | not known: the test set was opened for trial {tested}, another winner |"
        in other.read_text()
    )
    set_status(run, tested, Status.FINISHED)
    _, half = export_winner(run, tmp_path / "half.safetensors")
    said = "| test accuracy | not known: the opening of the test set was interrupted |"
    assert said in half.read_text()


def test_the_card_names_the_terms_of_celeba(run: Path, tmp_path: Path) -> None:
    images = read_manifest(RunFolder(run)).image_folder
    edit_manifest(
        RunFolder(run),
        lambda facts: facts.update(table=str(images.parent / "list_attr_celeba.csv")),
    )
    _, card = export_winner(run, tmp_path / "winner.safetensors")
    assert "| terms | CelebA is for non-commercial research only" in card.read_text()


@pytest.mark.parametrize(
    ("table", "images", "celeba"),
    [
        ("CelebA30k.csv", "CelebA30k.zip.extracted", True),
        ("list_attr_celeba.txt", "img", True),
        (None, "img_align_celeba/img_align_celeba", True),
        ("faces.csv", "faces", False),
        (None, "faces", False),
    ],
)
def test_celeba_is_known_by_the_names_of_its_files(
    tmp_path: Path, table: str | None, images: str, celeba: bool
) -> None:
    manifest = small_manifest(
        RunFolder(tmp_path),
        table=table and Path("/data", table),
        image_folder=Path("/data", images),
    )
    assert is_celeba(manifest) == celeba


def test_what_can_not_be_exported_leaves_nothing(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[pytest.ExceptionInfo[Exception]], str],
) -> None:
    there = tmp_path / "out"
    there.mkdir()
    (there / "old.onnx").write_text("mine")
    (there / "new.onnx.md").write_text("mine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name, said in (
        ("old.onnx", "exists already"),
        ("new.onnx", "exists already"),
        ("winner.pth", "ends in .safetensors or .onnx"),
        ("no/winner.onnx", "does not"),
        ("winner.onnx", "pip install 'face-attribute-sweep[onnx]'"),
    ):
        with pytest.raises(RequestError) as caught:
            export_winner(run, there / name)
        assert said in refused(caught)
    assert sorted(path.name for path in there.iterdir()) == ["new.onnx.md", "old.onnx"]


def test_the_command_writes_one_thing_and_names_it(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "winner.safetensors"
    done = RUN.invoke(app, ["export", str(run), "--model", str(path)])
    assert done.exit_code == 0 and done.stdout == f"{path}\n{path}.md\n"
    for options in ([], ["--model", str(path), "--tensorboard", str(tmp_path / "events")]):
        with pytest.raises(RequestError, match="exactly one of"):
            RUN.invoke(app, ["export", str(run), *options], catch_exceptions=False)
