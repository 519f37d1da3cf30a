"""The model card of an exported winner: what it is, its input, how good it is, and how to use it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from analysis.findings.excess import chosen_among
from analysis.frames.ledger import Opening, how_often, reasons
from analysis.frames.select import select
from analysis.statistics import wilson
from analysis.winner.onnx_file import TOLERANCE
from analysis.winner.predict import WinnerModel
from analysis.wording import counted, percent
from trainable.data.views import MEAN, STD
from trainable.network.model import TransferVGG16
from trainable.records.manifest import Manifest
from trainable.show.terminal import printable

CELEBA_TERMS: Final = (
    "CelebA is for non-commercial research only (its authors' agreement: "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), and this model was trained on it"
)


@dataclass(frozen=True)
class Card:
    """The content of the card of an exported winner."""

    title: str
    facts: Mapping[str, str]
    """What a program must know to use the file; the file contains it too."""
    rows: tuple[tuple[str, str], ...]
    snippet: str

    def text(self, sha256: str, difference: float | None) -> str:
        """The card in Markdown; `difference` is how far onnxruntime's probabilities differed from torch's."""
        rows = [*self.rows, ("SHA-256 of the file", sha256)]
        if difference is not None:
            said = (
                f"differs by at most {difference:.1g} from torch's on images of random noise; "
                f"more than {TOLERANCE:g} would have been refused"
            )
            rows.append(("a probability in onnxruntime", said))
        table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
        return f"# {self.title}\n\n| what | |\n|---|---|\n{table}\n\n```python\n{self.snippet}```\n"


def _cell(value: str) -> str:
    """Text without characters that Markdown interprets."""
    return printable(value).replace("|", "\\|").replace("<", "&lt;")


def is_celeba(manifest: Manifest) -> bool:
    """Is it CelebA, judging by the name that its table or image folder has in every known layout?"""
    places = (manifest.image_folder, *([manifest.table] if manifest.table else []))
    return any("celeba" in part.casefold() for place in places for part in place.parts[-2:])


def card_of(winner: WinnerModel, file: str) -> Card:
    """The card of a winner in a file of this name."""
    manifest, settings = winner.run.manifest, winner.settings
    negative, positive = winner.classes
    facts = {
        "target": manifest.target,
        "classes": json.dumps(winner.classes),
        "image_size": str(settings.image_size),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "trial_id": winner.winner.trial_id,
        "epoch": str(winner.winner.epoch),
        "split_sha256": manifest.digests.split,
        "project_version": manifest.project_version,
    }
    side = settings.image_size
    onnx = file.lower().endswith(".onnx")
    inside = "done inside the file" if onnx else "to be done before the network"
    rows = (
        ("file", file),
        ("target", manifest.target),
        ("class 0", negative),
        ("class 1", f"{positive}: a logit above 0, a probability above 0.5"),
        (
            "image size",
            f"{side} × {side} px RGB, upright (EXIF), resized bilinearly by Pillow"
            + (", to be done before the network" if onnx else ""),
        ),
        ("normalisation", f"pixels / 255, minus {MEAN}, divided by {STD}; {inside}"),
        *_trained(winner),
        *_judged(winner),
        ("split", f"SHA-256 {manifest.digests.split}"),
        *((("terms", CELEBA_TERMS),) if is_celeba(manifest) else ()),
    )
    made = onnx_snippet(file, side) if onnx else safetensors_snippet(file, side, winner.model)
    title = _cell(f"{winner.run.config.name}: {manifest.target} by trial {winner.winner.trial_id}")
    return Card(title, facts, rows, made)


def _trained(winner: WinnerModel) -> Iterator[tuple[str, str]]:
    trial = winner.run.by_id[winner.winner.trial_id].asked.settings
    acting = ", ".join(f"{name} {value}" for name, value in trial.effective().items())
    manifest, settings = winner.run.manifest, winner.settings
    yield (
        "network",
        f"VGG-16, {settings.width:g} of its channels, one logit; trained from weights {Path(settings.weights).name}",
    )
    yield "trained", f"epoch {winner.winner.epoch} of trial {winner.winner.trial_id}: {acting}"
    commit = f", commit {manifest.git_commit}" if manifest.git_commit else ""
    yield "made by", f"face-attribute-sweep {manifest.project_version}{commit}"


def _judged(winner: WinnerModel) -> Iterator[tuple[str, str]]:
    """How good it is, on validation and test images."""
    read, selection = winner.run, select(winner.run)
    assert selection.winner is not None
    images = len(read.labels)
    correct = round(selection.winner.best.val_accuracy * images)
    yield "validation accuracy", _accuracy(correct, images)
    chosen = chosen_among(read, selection)
    yield "the same, corrected for selection", "; ".join(chosen.said())
    yield "test accuracy", _tested(winner, read.openings)
    yield (
        "openings",
        " ".join([how_often(read.openings), *(f"{text}." for text in reasons(read.openings))]),
    )


def _accuracy(correct: int, images: int) -> str:
    interval = wilson(correct, images)
    return (
        f"{percent(correct / images)} of {counted(images, 'image')} "
        f"(95 % Wilson interval {percent(interval.low)} to {percent(interval.high)})"
    )


def _tested(winner: WinnerModel, openings: tuple[Opening, ...]) -> str:
    if not openings:
        return "not known: the test set has not been opened"
    newest = openings[-1]
    if newest.winner.weights_sha256 != winner.winner.weights_sha256:
        return (
            f"not known: the test set was opened for trial {newest.winner.trial_id}, another winner"
        )
    if newest.result is None:
        return "not known: the opening of the test set was interrupted"
    return _accuracy(newest.result.confusion.correct, newest.result.images)


# ---------------------------------------------------------------- how to use it

OPENED: Final = 'ImageOps.exif_transpose(Image.open("face.jpg")).convert("RGB")'


def safetensors_snippet(file: str, side: int, model: TransferVGG16) -> str:
    """Ten lines of Python that predict an image with torchvision, Pillow and safetensors."""
    head = ", ".join(f"torch.nn.{_layer(layer)}" for layer in model.classifier)
    return f"""\
import torch, torchvision
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torchvision.transforms import functional as F
with torch.device("meta"):
    model = torchvision.models.VGG(torchvision.models.vgg.make_layers({_channels(model.features)}))
    model.classifier = torch.nn.Sequential({head})
model.load_state_dict(load_file({json.dumps(file)}), assign=True)
image = F.pil_to_tensor({OPENED}.resize(({side}, {side}), Image.Resampling.BILINEAR))[None]
print(model.eval()(F.normalize(image / 255, {list(MEAN)}, {list(STD)})).sigmoid().item())
"""


def onnx_snippet(file: str, side: int) -> str:
    """The same lines with onnxruntime, numpy and Pillow."""
    return f"""\
import numpy as np
import onnxruntime
from PIL import Image, ImageOps
session = onnxruntime.InferenceSession({json.dumps(file)}, providers=["CPUExecutionProvider"])
image = {OPENED}.resize(({side}, {side}), Image.Resampling.BILINEAR)
pixels = np.asarray(image).transpose(2, 0, 1)[None]  # (batch, 3, {side}, {side}) uint8
logit, probability = session.run(None, {{"pixels": pixels}})
print(probability[0])
"""


def _channels(features: nn.Sequential) -> str:
    """The channels in the form that torchvision's `make_layers` takes."""
    found = [
        layer.out_channels if isinstance(layer, nn.Conv2d) else "M"
        for layer in features
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]
    return json.dumps(found)


def _layer(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"Linear({layer.in_features}, {layer.out_features})"
    return f"{type(layer).__name__}()"
