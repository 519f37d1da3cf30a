"""What a node is asked before the first trial: does it see the run folder, how fast is it?

Apart from the rest, so that a worker of Ray which runs them starts soon.
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
    """Why a training step can't be a CUDA graph here; "" where it can."""
    return problem("cuda", precision)


def why_unused() -> str:
    """Why torch can't use a GPU that this node has; "" where it can, or has none."""
    return unused_gpu()


@dataclass(frozen=True)
class MustSee:
    """What every node must see, so that trials can run there."""

    folder: Path
    """Of the run: nodes write there, too."""
    images: Path
    """A folder."""
    first_image: str
    """One of them, relative to their folder."""
    session: int
    """Which leaves the marks that show that a node writes."""

    @property
    def mark(self) -> str:
        """How the names of the marks begin."""
        return f".seen-{self.session}-"


def look(asked: MustSee) -> dict[str, Any]:
    """What a node sees of the run folder and the images; leaves a mark in the folder."""
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
