"""What the winner says of images that a person gives: the same logits as on record, bit by bit on a CPU.

Here images are opened that no split names. They may be test images, so the seal is asked before any is decoded.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from analysis.frames.ledger import Winner
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement.predicted import probabilities
from analysis.winner.load import chosen_winner, settings_here, winner_model
from analysis.winner.seal import refuse_sealed
from trainable.config import RunSettings
from trainable.data import LabelledImages
from trainable.data.examine import Begin, no_progress
from trainable.data.given import GivenImage, given_images
from trainable.data.views import ORIGINAL
from trainable.errors import RequestError
from trainable.frozen.reference import EVALUATION_BATCH, Pass, Work, autocast, plain_batches
from trainable.hardware.cpus import usable_cpus
from trainable.network.model import TransferVGG16, forward_frozen


@dataclass(frozen=True)
class WinnerModel:
    """The winner of a run, ready to be asked."""

    run: Snapshot
    winner: Winner
    settings: RunSettings
    model: TransferVGG16

    @property
    def classes(self) -> tuple[str, str]:
        """The target's values that count as 0 and as 1."""
        return self.run.manifest.classes

    @property
    def batch_size(self) -> int:
        """Images in a batch when the logits on record were made: 64, or all validation images where they are fewer.

        What is left over of them, 3,000 % 64 for example, made a last batch of its own size.
        """
        return min(EVALUATION_BATCH, len(self.run.labels))

    def predict(
        self,
        images: Any,
        batch_size: int | None = None,
        threads: int | None = None,
        begin: Begin = no_progress,
    ) -> pd.DataFrame:
        """file, logit, probability (of class 1) and class (a value of the target) of each image, in order.

        `images`: a path (a file, a folder or a zip of images), a Pillow image, a tensor (3, height, width) or (n, 3,
        height, width) of uint8, or several of these. They are turned upright, made square and normalised here, as for
        the training.

        On a CPU a logit's last bits depend on its image, on `batch_size` and on torch's `threads`, and not on what
        else is asked; by default these are the run's own, so that it is the one on record. `begin(text, total)` gives
        a callback that is told how many more images are done.

        Until the test set was opened for this winner, test images are refused. They are known by their files'
        content: a tensor, or a picture that Pillow did not open from a file, is no file, and can't be told.

        Raises:
            RequestError: an image can't be read or decoded, or is a sealed test image.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size < 1 or (threads is not None and threads < 1):
            raise RequestError(
                f"batch size and threads must be 1 or more, but they are {size} and {threads}"
            )
        given = given_images(images)
        names = [each.name for each in given]
        digests = _digests(given, begin)
        refuse_sealed(self.run, self.winner, names, digests)
        asked = Pass(
            _decodable(given, digests, self.settings.image_size),
            range(len(given)),
            size,
            lambda file: ORIGINAL,
        )
        logits = torch.empty(len(given))
        advance = begin("images", len(given))
        with _threads(threads or self.settings.threads):
            settings = self.settings.model_copy(update={"workers": usable_cpus()})
            for places, hidden in plain_batches(self.model, settings, asked, Work()):
                logits[places] = _logits(self.model, hidden, settings, size)
                advance(len(places))
        found = pd.DataFrame({"file": names, "logit": logits.numpy()})
        found["probability"] = probabilities(found)
        found["class"] = [self.classes[int(logit > 0)] for logit in found["logit"]]
        return found


def load_winner(run: Source) -> WinnerModel:
    """The winner by validation, its weights checked against the record, on a GPU where there is one.

    Raises:
        RequestError: no run folder, no winner, or its weights are gone or changed.
    """
    read = Snapshot.of(run)
    winner, settings = chosen_winner(read.folder, select(read)), settings_here(read)
    return WinnerModel(read, winner, settings, winner_model(read, winner, settings).eval())


def _digests(given: list[GivenImage], begin: Begin) -> list[str | None]:
    """SHA-256 of each image's file."""
    advance, found = begin("looking at every image", len(given)), []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for digest in pool.map(GivenImage.digest, given):
            found.append(digest)
            advance(1)
    return found


def _decodable(given: list[GivenImage], digests: list[str | None], size: int) -> LabelledImages:
    """As the project's own images: what is decoded here stands for what is kept elsewhere."""
    return LabelledImages(
        folder=Path(),
        files=tuple(each.name for each in given),
        labels=torch.zeros(len(given)),
        image_size=size,
        digests=tuple(digest or "" for digest in digests),
        kept=lambda place: given[place].pixels(size, digests[place]),
    )


@torch.no_grad()
def _logits(model: TransferVGG16, hidden: Tensor, settings: RunSettings, size: int) -> Tensor:
    """Logits (images,) as in a batch of `size`, float32 on the CPU.

    A smaller batch is filled up before the head alone: convolutions give an image the same bits in any batch
    (docs/sharing.md) but one of one, which goes through them twice.
    """
    with autocast(settings.precision, settings.device):
        if len(hidden) == size:
            logits = model.suffix(hidden)
        else:
            maps = model.avgpool(forward_frozen(model.features[model.cut :], hidden)).flatten(1)
            filled = nn.functional.pad(maps, (0, 0, 0, size - len(maps)))
            logits = model.classifier(filled).squeeze(1)[: len(hidden)]
    return logits.float().cpu()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads of torch; before and after, as many as its user has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
