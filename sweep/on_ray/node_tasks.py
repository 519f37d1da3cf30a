"""What a node is asked before the first trial: does it see the run folder, how fast is it?

Apart from the rest, so that a worker of Ray which runs them starts soon.
"""

import os
import socket
from pathlib import Path
from typing import Any

from sweep.frozen.rates import RateProbe, Rates, measure_rates
from trainable.config import Precision
from trainable.graph_test import problem
from trainable.hardware.device import device_of, has_gpu
from trainable.hardware.unused_gpu import unused_gpu
from trainable.network.model import load_backbone


def measure(weights: str, width: float, probe: RateProbe) -> Rates | str:
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


def look(folder: str, images: str, first_image: str, session: int) -> dict[str, Any]:
    """What a node sees of the run folder and the images; leaves a mark in the folder."""
    host = socket.gethostname()
    mark = Path(folder) / f".seen-{session}-{host}-{os.getpid()}"
    try:
        mark.write_text(host)
        wrote = mark.name
    except OSError:
        wrote = ""
    return {
        "host": host,
        "mark": wrote,
        "manifest": (Path(folder) / "manifest.json").is_file(),
        "image": (Path(images) / first_image).is_file(),
        "device": device_of("cuda" if has_gpu() else "cpu").facts(),
    }
