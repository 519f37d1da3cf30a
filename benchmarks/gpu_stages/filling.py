"""Measures inspecting the images before the first trial and filling the store in its first epoch: as predicted?"""

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.gpu_stages.bench import Bench
from benchmarks.gpu_stages.equality import full, setting
from benchmarks.gpu_stages.job import Job, Note, last_line
from benchmarks.gpu_stages.speed import summary
from sweep.frozen.policy import feature_bytes, together
from sweep.frozen.rates import RateProbe, measure_rates
from trainable.config import DataConfig
from trainable.data import load_pixels
from trainable.data.examine import examine
from trainable.data.overlap import find_overlap
from trainable.data.views import normalise
from trainable.frozen.chunks import FILL_BATCH
from trainable.frozen.reference import autocast
from trainable.hardware.device import device_of
from trainable.network.model import CUTS, forward_frozen, frozen_layers

CUT: Final = CUTS["block5"]
HASHED: Final = {"cuda": 2**28, "cpu": 2**24}  # bytes
DECODED: Final = 100  # images
MANY: Final = 4096


def fill(job: Job, note: Note) -> None:
    """Images inspected, cold and warm; the store filled by block5 and then by the head; each step on its own."""
    os.environ["SWEEP_STORE"] = str(job.store)
    note(inspection=_inspection(job))
    half = job.half if job.device == "cuda" else "float32"
    bench = full(job, job.training, job.validation, epochs=2, precision=half)
    try:
        note(predicted=_predicted(job, bench))
    except Exception as error:
        note(predicted=last_line(error))
    note(decoded_images_per_second=_decoded(bench, job.cpus))
    bench = bench.but(graphs=True).sharing("resident", job.store)
    by = bench.shared()
    for strategy in ("block5", "head"):
        rows = bench.rows(setting(strategy, job.head), by=by)
        filled, steady = (row.seconds for row in rows)
        views = rows[0].frozen_images
        note(
            **{
                f"fill {strategy}": summary(rows)
                | {
                    "fill_seconds": filled - steady,
                    "views": views,
                    "views_per_second": views / max(filled - steady, 1e-9),
                }
            }
        )
    note(alone=_alone(job, bench))


def _inspection(job: Job) -> dict[str, Any]:
    """Seconds to read the table, split it, and inspect and compare all images: cold, and with everything remembered."""
    config = DataConfig(
        images=job.faces / "faces", table=job.table, target="Smiling", image_size=job.image_size
    )
    found: dict[str, Any] = {}
    for name in ("cold_seconds", "warm_seconds"):
        began = time.perf_counter()
        examined = examine(config)
        found[name] = time.perf_counter() - began
    columns = (examined.inspection.column(name) for name in ("pixels", "perceptual"))
    began = time.perf_counter()
    overlap = find_overlap(examined.split, *columns)
    found["of_which_overlap_seconds"] = time.perf_counter() - began
    return found | {"images": len(examined.split), "same": overlap.same, "near": overlap.near}


def _predicted(job: Job, bench: Bench) -> dict[str, Any]:
    """The launcher's prediction for filling the store for block5, in parts."""
    began = time.perf_counter()
    of_the_run = RateProbe(
        cuts=(CUT,),
        images=bench.data.training,
        threads=job.cpus,
        device=job.device,
        precision=bench.run.precision,
        store=job.store,
    )
    rates = measure_rates(bench.backbone, of_the_run)
    probe = time.perf_counter() - began
    views = 2 * job.training + job.validation
    item = 2 if bench.run.precision != "float32" else 4
    written = views * feature_bytes(job.width, job.image_size, CUT, item)
    parts = {
        "decode": views * rates.decode,
        "layers": views * rates.frozen(CUT),
        "copy": written * rates.copy,
        "write": written * rates.write,
    }
    return {
        "probe_seconds": probe,
        "fill_seconds": together(parts.values(), rates.stages_overlap),
        "parts_seconds": parts,
    }


def _decoded(bench: Bench, workers: int) -> float:
    """Images per second decoded by all of a trial's processes."""
    images = bench.data.training
    order = range(min(len(images), MANY))
    began = time.perf_counter()
    for _ in images.pixel_batches(order, FILL_BATCH["cuda"], workers):
        pass
    return len(order) / (time.perf_counter() - began)


def _alone(job: Job, bench: Bench) -> dict[str, Any]:
    """Rates of each step with nothing else running: the most that filling could reach."""
    device = device_of(job.device)
    files = [job.faces / "faces" / file for file in bench.data.training.files[:DECODED]]
    began = time.perf_counter()
    pixels = [load_pixels(file, job.image_size) for file in files]
    found = {"decode_images_per_second_one_thread": len(files) / (time.perf_counter() - began)}
    batch = FILL_BATCH[job.device]
    images = torch.stack([pixels[i % len(pixels)] for i in range(batch)]).to(device.torch)
    layers = frozen_layers(bench.backbone).to(device.torch)[:CUT]

    def frozen() -> torch.Tensor:
        with autocast(bench.run.precision, job.device):
            return forward_frozen(layers, normalise(images))

    features = frozen()
    device.synchronize()
    repeats = 10 if job.device == "cuda" else 1
    began = time.perf_counter()
    for _ in range(repeats):
        features = frozen()
    device.synchronize()
    found["frozen_images_per_second"] = repeats * batch / (time.perf_counter() - began)
    pinned = device.host_buffer(tuple(features.shape), features.dtype)
    copies: dict[str, Callable[[], Tensor]] = {
        "pinned": lambda: pinned.copy_(features),
        "pageable": lambda: features.cpu(),
    }
    for name, copy in copies.items():
        copy()
        began = time.perf_counter()
        for _ in range(repeats):
            copy()
        device.synchronize()
        seconds = time.perf_counter() - began
        found[f"to_host_{name}_bytes_per_second"] = repeats * features.nbytes / seconds
    content = os.urandom(HASHED[job.device])
    began = time.perf_counter()
    hashlib.sha256(content)
    found["sha256_bytes_per_second"] = len(content) / (time.perf_counter() - began)
    return found
