"""Does a captured step equal the eager one, and does a trial with graphs resume as if it had not stopped?"""

from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any, Final

import torch

from benchmarks.gpu_stages.bench import ALL_DIGITS, Bench, digits, losses, random_features, results
from benchmarks.gpu_stages.equality import full, setting, small
from benchmarks.gpu_stages.job import Job, Note, last_line
from trainable.config import RunSettings, TrialConfig
from trainable.frozen.reference import Work
from trainable.hardware.device import device_of
from trainable.network.model import build_model
from trainable.records.state import load_state
from trainable.step import TrainingSteps

OPTIMIZERS: Final = ("adam", "adamw", "sgd")
EPOCHS: Final = 3
FORCED_SCALE: Final = 2.0**40  # makes float16 gradients infinite


@dataclass(frozen=True)
class Stepped:
    """The result of some epochs of steps."""

    losses: list[float]
    skipped_steps: int
    weights: list[float]


def stepped(
    bench: Bench, config: TrialConfig, run: RunSettings, images: int, infinities: bool = False
) -> Stepped:
    """Run some epochs on random features; the last batch of each is smaller, and dropout is drawn anew."""
    device = device_of(run.device)
    device.fix_kernels(run.tf32)
    torch.manual_seed(0)
    model = build_model(config, bench.backbone).to(device.torch)
    frozen, labels = random_features(config, run, images)
    steps = TrainingSteps(config, run, model, labels)
    if infinities:
        state = steps.state(0)
        steps.load(state | {"scaler": state["scaler"] | {"scale": FORCED_SCALE}})
    sums = []
    for epoch in range(1, EPOCHS + 1):
        steps.epoch(frozen, epoch, Work())
        sums.append(steps.fetch(torch.zeros(1, device=device.torch))[0])
    weights = [
        float(w) for p in model.trained().values() for w in p.detach().flatten()[:1000].cpu()
    ]
    steps.close()
    return Stepped([s.loss for s in sums], sum(s.skipped_steps for s in sums), weights)


def graph_against_eager(
    bench: Bench, strategy: str, optimizer: str, precision: str, infinities: bool = False
) -> dict[str, Any]:
    """Digits in common of losses and weights, and the steps that each of the two skipped."""
    config = setting(strategy, "64", optimizer=optimizer, batch_size=16, dropout=0.5)
    run = bench.but(precision=precision).run
    images = 16 * 7 + 5
    eager = stepped(bench, config, run, images, infinities)
    graph = stepped(bench, config, run.model_copy(update={"graphs": True}), images, infinities)
    return {
        "loss_digits": digits(eager.losses, graph.losses),
        "weight_digits": digits(eager.weights, graph.weights),
        "skipped_eager": eager.skipped_steps,
        "skipped_graph": graph.skipped_steps,
    }


def resumed(bench: Bench, config: TrialConfig) -> dict[str, Any]:
    """Compare a trial that stops after its first epoch and resumes from its state with one that does not stop."""
    found = []
    for parts in ((bench.run.epochs,), (1, bench.run.epochs)):
        record, rows = bench.record(), []
        for epochs in parts:
            part = bench.but(epochs=epochs)
            rows += part.rows(config, record)
        trained = load_state(record.last)["trained"]
        found.append((results(rows), {name: value.tolist() for name, value in trained.items()}))
    (once, weights), (twice, other) = found
    return {"row_digits": digits(once, twice), "same_weights": weights == other}


def graphs(job: Job, note: Note) -> None:
    bench = small(job, 100, 20)
    for strategy, optimizer in product(("head", "block5"), OPTIMIZERS):
        note(
            **{
                f"{strategy} {optimizer} {job.half}": graph_against_eager(
                    bench, strategy, optimizer, job.half
                )
            }
        )
    for infinities in (False, True):
        name = f"head adam float16{', forced infinities' if infinities else ''}"
        try:
            note(**{name: graph_against_eager(bench, "head", "adam", "float16", infinities)})
        except Exception as error:
            note(**{name: last_line(error)})
    for with_graphs in (False, True):
        here = bench.but(graphs=with_graphs, precision=job.half).sharing("resident")
        found = resumed(here, setting("block5", "64", batch_size=16))
        note(**{f"resumed {'with graphs' if with_graphs else 'eager'}": found})
    note(**_trials(full(job, 512, 128, epochs=3, precision=job.half), job.head))


def _trials(bench: Bench, head: str) -> dict[str, Any]:
    """Whole trials of the job's own size on one store, with graphs and without."""
    found: dict[str, Any] = {}
    for strategy in ("head", "block5"):
        here = bench.sharing("resident", bench.run.folder / "store-of-graphs")
        eager = here.rows(setting(strategy, head))
        graph = here.but(graphs=True).rows(setting(strategy, head))
        found[f"trial {strategy}"] = {
            "digits": digits(losses(eager), losses(graph)),
            "same": digits(results(eager), results(graph)) == ALL_DIGITS,
            "eager_epoch_seconds": median(row.seconds for row in eager[1:]),
            "graph_epoch_seconds": median(row.seconds for row in graph[1:]),
        }
    return found
