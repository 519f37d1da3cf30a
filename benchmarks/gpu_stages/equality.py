"""Does sharing frozen work leave a trial unchanged? To the last bit on a CPU; on a GPU as far as its kernels allow."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Final

from benchmarks.gpu_stages.bench import KINDS, Bench, digits, losses, make_bench, results
from benchmarks.gpu_stages.job import Job, Note, last_line
from trainable.config import Precision, TrialConfig
from trainable.hardware.device import device_of

PLAIN_RUNS: Final = 3
"""Of the path without sharing, to measure its own spread."""


@dataclass(frozen=True)
class Compared:
    """Training losses by epoch of the plain path, run several times, and of the paths that share."""

    plain: list[list[float]]
    resident: list[float]
    disk: list[float]

    @property
    def plain_digits(self) -> float:
        """Digits that runs of the plain path have in common."""
        return min(digits(self.plain[0], other) for other in self.plain[1:])

    @property
    def shared_digits(self) -> float:
        """Digits that the worse of the sharing paths has in common with the plain one."""
        return min(digits(self.plain[0], other) for other in (self.resident, self.disk))

    @property
    def within_spread(self) -> bool:
        """Do runs of the plain path differ as much as a sharing path differs from the nearest of them?"""
        return all(
            min(abs(value - each) for each in epoch) <= max(epoch) - min(epoch)
            for shared in (self.resident, self.disk)
            for value, *epoch in zip(shared, *self.plain, strict=True)
        )

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {
            "plain_digits": self.plain_digits,
            "shared_digits": self.shared_digits,
            "within_spread": self.within_spread,
        }


def compare(bench: Bench, config: TrialConfig, precision: Precision, runs: int = 2) -> Compared:
    """Train a setting without sharing `runs` times, and once with each kind of sharing: filling a store, reading it."""
    here = bench.but(precision=precision)
    store = here.new_store()
    found = {kind: losses(here.sharing(kind, store).rows(config)) for kind in KINDS[1:]}
    plain = [losses(here.sharing("off").rows(config)) for _ in range(runs)]
    return Compared(plain, found["resident"], found["disk"])


def cases() -> list[tuple[Precision, str, bool]]:
    """Precision, strategy, and whether it is deterministic on a GPU: cuDNN's float32 gradients are not."""
    return [
        ("float32", "head", True),
        ("bfloat16", "head", True),
        ("bfloat16", "block5", True),
        ("float32", "block5", False),
    ]


def setting(strategy: str, head: str, **changed: Any) -> TrialConfig:
    facts = {"strategy": strategy, "head": head, "lr": 1e-3, "augmentation": "flip", **changed}
    return TrialConfig(**facts)


def small(job: Job, training: int, validation: int, **settings: Any) -> Bench:
    """A bench of at most 64 pixels and quarter width."""
    return _bench(
        job, training, validation, min(job.image_size, 64), min(job.width, 0.25), settings
    )


def full(job: Job, training: int, validation: int, **settings: Any) -> Bench:
    """A bench with the job's own image size and width."""
    return _bench(
        job, training, validation, job.image_size, job.width, {"decoders": job.cpus, **settings}
    )


def _bench(
    job: Job, training: int, validation: int, size: int, width: float, settings: dict[str, Any]
) -> Bench:
    views = "device" if job.device == "cuda" else "host"
    training = min(training, job.training + job.validation - 8)
    return make_bench(
        job.faces / "faces",
        job.table,
        job.folder / f"bench-{size}",
        job.device,
        training,
        min(validation, job.training + job.validation - training),
        size,
        width,
        **{"threads": job.cpus, "workers": job.cpus, "views_made_on": views, **settings},
    )


def at_full_size(job: Job, note: Note) -> None:
    """512 + 128 images, two epochs, in each case; the plain path more often where it is not deterministic."""
    bench = full(job, 512, 128, epochs=2)
    for precision, strategy, deterministic in cases():
        runs = 2 if deterministic else PLAIN_RUNS
        found = compare(bench, setting(strategy, job.head), precision, runs)
        note(**{f"{precision} {strategy}": found.facts()})


# ---------------------------------------------------------------- does everything run?


AUGMENTATIONS: Final = ("none", "flip", "flip_jitter")


def combinations() -> Sequence[tuple[Precision, str]]:
    """Number formats and augmentations, the most likely in a sweep first."""
    precisions: tuple[Precision, ...] = ("bfloat16", "float32", "float16")
    return list(product(precisions, AUGMENTATIONS))


def tiny(job: Job, note: Note) -> None:
    """Trials of every precision, kind of sharing and augmentation, with and without graphs: which run and are equal?"""
    bench = small(job, 56, 12, epochs=2)  # three and a half batches per epoch
    failed: dict[str, str] = {}
    alike: dict[str, float] = {}
    done = 0
    for precision, augmentation in combinations():
        config = setting("block5", "64", augmentation=augmentation, batch_size=16)
        plain: list[float] = []
        for kind, graphs in product(KINDS, (False, True)):
            name = f"{precision} {augmentation} {kind}{' graphs' if graphs else ''}"
            try:
                rows = bench.but(precision=precision, graphs=graphs).sharing(kind).rows(config)
                plain = plain or results(rows)
                alike[name] = digits(plain, results(rows))
            except Exception as error:
                failed[name] = last_line(error)
            device_of(job.device).give_back()
            done += 1
            note(trials=done, failed=failed, digits_as_plain=alike)
