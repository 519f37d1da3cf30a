"""Exports the winner as one file with trained and frozen layers, for programs without this project, with a card."""

from pathlib import Path
from typing import Final

import safetensors.torch

from analysis.frames.snapshot import Source
from analysis.winner.card import Card, card_of
from analysis.winner.predict import WinnerModel, load_winner
from analysis.winner.predicted import refuse_written
from trainable.records.files import current_disk, replaced, sha256_of

SUFFIXES: Final = (".safetensors", ".onnx")


def export_winner(run: Source, path: Path) -> tuple[Path, Path]:
    """Write the winner to `path` and its card to `path`.md; returns both paths.

    A .safetensors file has the parameters in float32 under torchvision's names; an .onnx file is a network from uint8
    pixels to logit and probability, checked against the model in onnxruntime before it gets its name.

    Raises:
        RequestError: there is no run folder or no winner, its weights are missing or were changed, `path` has another
            suffix or exists already, or an .onnx file can't be made.
    """
    beside = path.with_name(f"{path.name}.md")
    refuse_written(path, "--model", SUFFIXES)
    refuse_written(beside, "the card of --model", (".md",))
    onnx = path.suffix.lower() == ".onnx"
    if onnx:
        from analysis.winner.onnx_file import refuse_without_onnx

        refuse_without_onnx()
    winner = load_winner(run)
    winner.model.to("cpu")
    card = card_of(winner, path.name)
    with replaced(beside) as card_aside, replaced(path) as aside:
        difference = None
        if onnx:
            content, difference = _onnx(winner, card)
        else:
            content = _safetensors(winner, card)
        _write(aside, content)
        _write(card_aside, card.text(sha256_of(aside), difference).encode())
    return path, beside


def _safetensors(winner: WinnerModel, card: Card) -> bytes:
    state = winner.model.state_dict().items()
    tensors = {name: tensor.contiguous() for name, tensor in state}
    return safetensors.torch.save(tensors, {"format": "pt", **card.facts})


def _onnx(winner: WinnerModel, card: Card) -> tuple[bytes, float]:
    """The file's content, and the largest difference of a probability between onnxruntime and the model."""
    from analysis.winner.onnx_file import largest_difference, onnx_bytes

    size = winner.settings.image_size
    content = onnx_bytes(winner.model, size, card.facts)
    return content, largest_difference(content, winner.model, size)


def _write(path: Path, content: bytes) -> None:
    with current_disk().open(path, "wb") as file:
        file.write(content)
