"""Predicts images that a user gives with the winner; on a CPU the logits equal the recorded ones bit by bit.

This module opens images that are not from the split. They may be test images, so the seal is checked before any image
is decoded.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis.frames.ledger import Winner
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement.predicted import probabilities
from analysis.winner.load import chosen_winner, settings_here, winner_model
from analysis.winner.seal import refuse_sealed
from trainable.config import RunSettings
from trainable.data import LabelledImages
from trainable.data.examine import Begin, Progress, no_progress
from trainable.data.given import GivenImage, given_images
from trainable.data.views import ORIGINAL
from trainable.errors import RequestError
from trainable.fit import predict
from trainable.frozen.reference import EVALUATION_BATCH, Batches, Pass, Work, plain_batches
from trainable.hardware.cpus import usable_cpus
from trainable.metric import predicted_classes
from trainable.network.model import TransferVGG16


@dataclass(frozen=True)
class WinnerModel:
    """The winner of a run, ready to predict."""

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
        """Images in a batch when the recorded logits were made: 64, or all validation images if there are fewer.

        The remainder, such as 3,000 % 64, was a last batch of its own size.
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
        height, width) of uint8, or several of these. They are turned upright, made square and normalised here, as in
        training.

        The last batch is filled up to `batch_size`. So on a CPU a logit's last bits depend on its image, on
        `batch_size` and on torch's `threads`, but not on the other images; by default both are those of the run, and
        the logit equals the recorded one. A `batch_size` of 1 is fastest for one image.

        Until the test set has been opened for this winner, test images are refused. They are recognised by their files'
        content: a tensor, or a picture that Pillow did not open from a file, can't be recognised.
        `begin(text, total)` returns a callback that takes the number of images done since its last call.

        Raises:
            RequestError: an image can't be read or decoded, or is a sealed test image.
        """
        size = self.batch_size if batch_size is None else batch_size
        for name, number in (("batch_size", size), ("threads", threads)):
            if number is not None and number < 1:
                raise RequestError(f"{name} must be at least 1, but it is {number}")
        given = given_images(images)
        names = [each.name for each in given]
        digests = _digests(given, begin)
        refuse_sealed(self.run, self.winner, names, digests)
        places = [*range(len(given)), *[len(given) - 1] * (-len(given) % size)]
        decodable = _decodable(given, digests, self.settings.image_size)
        asked = Pass(decodable, places, size, lambda file: ORIGINAL)
        settings = self.settings.model_copy(update={"workers": usable_cpus()})
        with _threads(threads or self.settings.threads):
            batches = plain_batches(self.model, settings, asked, Work())
            told = _told(batches, begin("images", len(given)))
            logits = predict(self.model, told, settings)[: len(given)]
        found = pd.DataFrame({"file": names, "logit": logits.numpy()})
        found["probability"] = probabilities(found)
        found["class"] = [
            self.classes[int(positive)] for positive in predicted_classes(found["logit"])
        ]
        return found


def load_winner(run: Source) -> WinnerModel:
    """The winner by validation, its weights checked against the record, on a GPU if there is one.

    Raises:
        RequestError: there is no run folder or no winner, or its weights are missing or were changed.
    """
    read = Snapshot.of(run)
    winner, settings = chosen_winner(read.folder, select(read)), settings_here(read)
    return WinnerModel(read, winner, settings, winner_model(read, winner, settings).eval())


def _digests(given: list[GivenImage], begin: Begin) -> list[str | None]:
    """SHA-256 of each image's file."""
    advance, found = begin("checking every image", len(given)), []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for digest in pool.map(GivenImage.digest, given):
            found.append(digest)
            advance(1)
    return found


def _decodable(given: list[GivenImage], digests: list[str | None], size: int) -> LabelledImages:
    """The given images in the form of the data set's; they are decoded here instead of read from the store."""
    return LabelledImages(
        folder=Path(),
        files=tuple(each.name for each in given),
        labels=torch.zeros(len(given)),
        image_size=size,
        digests=tuple(digest or "" for digest in digests),
        kept=lambda place: given[place].pixels(size, digests[place]),
    )


def _told(batches: Batches, advance: Progress) -> Batches:
    """The same batches; reports each image to `advance` once, also the last one, which fills up its batch."""
    for places, hidden in batches:
        yield places, hidden
        advance(len(places.unique()))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use this many threads, and restore its user's number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
