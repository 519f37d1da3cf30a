"""What a node is asked before the first trial: does it see the run folder, and how fast is it?

This module imports little, so that a Ray worker that runs these tasks starts quickly.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.frozen.rates import RateProbe, Rates, measure_rates
from trainable.captured_steps import problem
from trainable.config import Precision
from trainable.hardware.device import device_of, has_gpu
from trainable.hardware.unused_gpu import unused_gpu
from trainable.network.model import load_backbone


def rates_or_why(weights: str, width: float, probe: RateProbe) -> Rates | str:
    """The rates of a node, or why its store can't be used."""
    try:
        return measure_rates(load_backbone(weights, width), probe)
    except OSError as error:
        return f"{error.filename or 'the store'}: {error.strerror or error}"


def graph_problem(precision: Precision) -> str:
    """Why a training step can't be a CUDA graph here; "" if it can."""
    return problem("cuda", precision)


def why_unused() -> str:
    """Why torch can't use the GPUs of this node; "" if it can, or if there are none."""
    return unused_gpu()


@dataclass(frozen=True)
class MustSee:
    """What every node must see so that trials can run there."""

    folder: Path
    """The run's; nodes also write there."""
    images: Path
    """A folder."""
    first_image: str
    """One of the images, relative to `images`."""
    session: int
    """The session that leaves the marks, which show that a node can write."""

    @property
    def mark(self) -> str:
        """The prefix of the names of the marks."""
        return f".seen-{self.session}-"


def look(asked: MustSee) -> dict[str, Any]:
    """What a node sees of the run folder and the images; leaves a mark in the run folder."""
    host = socket.gethostname()
    mark = asked.folder / f"{asked.mark}{host}-{os.getpid()}"
    try:
        mark.write_text(host)
        wrote = mark.name
    except OSError:
        wrote = ""
    return {
        "host": host,
        "mark": wrote,
        "manifest": (asked.folder / "manifest.json").is_file(),
        "image": (asked.images / asked.first_image).is_file(),
        "device": device_of("cuda" if has_gpu() else "cpu").facts(),
    }
