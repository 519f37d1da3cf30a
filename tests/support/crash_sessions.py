"""Whole commands in this process, in milliseconds: shipped code, but for Ray Tune, the network, and what is slow.

One trial after another, as Tune calls them. The network is one number, which follows from the learning rate and the
epochs that it was trained: whoever goes on from a wrong state gets other rows.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
import typer
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import sweep.__main__ as commands
import sweep.request.open_run as open_run_module
import trainable.fit as fit_module
import trainable.records.state as state_module
import trainable.trial as trial_module
from analysis import final_test as test_module
from analysis.final_test import final_test
from analysis.winner import load as winner_module
from sweep.on_ray import cluster, launcher
from sweep.on_ray.resolve import Resolved
from sweep.on_ray.workers import Writer
from sweep.request import prepare
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import Run, open_held_run
from sweep.resources.allocation import Allocation
from sweep.session import beginning
from sweep.session import create as run_folder
from sweep.session.beginning import Change
from sweep.session.extend import Request, extend
from sweep.session.hold import Driver
from sweep.session.interruption import Interruption
from sweep.session.replicate import replicate
from tests.support.faces import Faces, sweep_facts
from trainable.config import RunSettings, TrialConfig
from trainable.data import open_training_data, read_split
from trainable.data.examine import Begin
from trainable.errors import RequestError
from trainable.metric import Measured
from trainable.network.model import TransferVGG16
from trainable.records.manifest import Manifest, read_manifest
from trainable.records.run_folder import RunFolder
from trainable.schedule import derive_seed
from trainable.show.terminal import PlainConsole
from trainable.step import Sums
from trainable.trial import FaceTrial
from trainable.write_behind import Behind

BREAKS, DIVERGES = 0.04, 0.3
"""Learning rates: of a trial that raises an error in its second epoch, and of one that diverges there."""
RATES = (BREAKS, 0.05, DIVERGES, 0.047, 0.1, 0.02)
"""Of the trials, in their order. The fourth is pruned after two epochs, the last one after one; the fifth is best."""
PROGRESS = (1, 0.5, -0.2, 0.6)
"""Of each epoch, in learning rates: the best epoch is not always the last."""


def acknowledged() -> None:
    """Called where an epoch begins, and where Tune or a person hears of something: what was written before counts."""


# ---------------------------------------------------------------- the network


class Network:
    """In the place of trainable.step.TrainingSteps. `epoch` moves the one number; `mended` lets what breaks go well."""

    mended = False

    def __init__(
        self, config: TrialConfig, run: RunSettings, model: TransferVGG16, labels: Tensor
    ) -> None:
        self._config = config
        (self._number,) = model.trained().values()
        self._steps = torch.zeros(1)

    @torch.no_grad()
    def epoch(self, frozen: object, epoch: int, work: object) -> None:
        acknowledged()
        if self._config.lr == BREAKS and epoch == 2 and not self.mended:
            raise RuntimeError("broken")
        self._steps += 1
        draw = derive_seed(self._config.seed, epoch) % 100 / 10_000
        self._number.add_(self._config.lr * PROGRESS[epoch - 1] + self._steps * draw)
        Clock.seconds += 100 * (epoch % 2 == 0)

    def fetch(self, logits: Tensor) -> tuple[Sums, Tensor]:
        diverged = self._config.lr == DIVERGES and self._steps > 1
        return Sums(math.nan if diverged else float(logits.sum()), 0.5, 0), logits

    def rate(self, epoch: int) -> float:
        return self._config.lr

    def state(self, epoch: int) -> dict[str, Any]:
        return {"optimizer": {"steps": self._steps}}

    def load(self, state: Mapping[str, Any]) -> None:
        self._steps = state["optimizer"]["steps"].clone()

    def close(self) -> None:
        """Nothing is held."""


def build_model(config: TrialConfig, backbone: object) -> TransferVGG16:
    number = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(number.weight)
    return TransferVGG16(nn.Sequential(), 0, nn.Sequential(number))


def logits_of(model: TransferVGG16, labels: Tensor) -> Tensor:
    """The better, the higher the number."""
    (number,) = model.trained().values()
    return number.detach().flatten() * (2 * labels - 1)


def measure(logits: Tensor, labels: Tensor) -> Measured:
    """As trainable.metric.measure, without the area, which takes long."""
    loss = binary_cross_entropy_with_logits(logits, labels).item()
    accuracy = ((logits > 0) == (labels > 0.5)).float().mean().item()
    return Measured(loss, accuracy, accuracy, 0.5, one_class=False)


class Clock:
    """Each look takes a second, each even epoch a hundred more: so states are written, but not after each epoch."""

    seconds = 0.0

    @classmethod
    def monotonic(cls) -> float:
        cls.seconds += 1
        return cls.seconds


class Later(Behind):
    """Writes what a trial left as late as it may."""

    def __init__(self, workers: int = 1) -> None:
        super().__init__(workers)
        self._owed: Callable[[], None] | None = None

    def has_room(self, size: int) -> bool:
        return True

    def begin(self, last: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        write, self._left = self._left, None

        def owed(write: Callable[[], object]) -> None:
            try:
                write()
                last()
            except Exception as error:
                failed(error)

        if write is None:
            last()
        else:
            self._owed = partial(owed, write)

    def wait(self) -> None:
        owed, self._owed = self._owed, None
        if owed is not None:
            owed()


# ---------------------------------------------------------------- Tune


class OneAfterAnother:
    """In the place of tune.Tuner: one worker, one trial at a time, and no retries."""

    steps = math.inf
    """How many there are before it is ended, or before something comes in between."""
    in_between: Callable[[], None] | None = None

    def __init__(self, trainable: object, **given: Any) -> None:
        self._space = given["param_space"]
        self._searcher = given["tune_config"].search_alg
        self._scheduler = given["tune_config"].scheduler
        (self._keeper,) = given["run_config"].callbacks
        self._worker: FaceTrial | None = None

    def fit(self) -> None:
        try:
            self._search()
        finally:
            if self._worker is not None:
                self._worker.cleanup()
        self._keeper.on_experiment_end(trials=[])

    def _search(self) -> None:
        number = 0
        while not self._is_ended():
            suggested = self._searcher.suggest(str(number := number + 1))
            acknowledged()
            if suggested == Searcher.FINISHED:
                break
            if suggested is None:  # until all is written
                assert self._worker is not None
                self._worker._behind.wait()
                continue
            self._train(str(number), suggested["trial_id"])

    @classmethod
    def _is_ended(cls) -> bool:
        if cls.steps > 0:
            return False
        between = cls.in_between
        if between is None:
            return True
        cls.steps, cls.in_between = math.inf, None
        between()
        return False

    def _train(self, name: str, trial_id: str) -> None:
        trial = SimpleNamespace(
            config={"trial_id": trial_id},
            num_failures=0,
            get_error=lambda: error,
            temporary_state=SimpleNamespace(ray_actor=None),
        )
        error: Exception | None = None
        self._keeper.on_trial_start(iteration=1, trials=[], trial=trial)
        config = self._space | {"trial_id": trial_id}
        if self._worker is None:
            self._worker = FaceTrial(config)
        else:
            self._worker.reset_config(config)
        decision: str = TrialScheduler.CONTINUE
        result: dict[str, Any] = {}
        while decision == TrialScheduler.CONTINUE and "done" not in result:
            OneAfterAnother.steps -= 1
            if self._is_ended():
                return
            try:
                result = self._worker.step()
            except RuntimeError as raised:
                error = raised
                self._worker.cleanup()
                self._worker = None
                self._searcher.on_trial_complete(name, error=True)
                self._keeper.on_trial_error(iteration=1, trials=[], trial=trial)
                return
            assert "fault" not in result
            acknowledged()
            if "done" not in result:
                decision = self._scheduler.on_trial_result(None, trial, result)
                acknowledged()
            self._keeper.on_trial_result(iteration=1, trials=[], trial=trial, result=result)
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(name, result)
        self._keeper.on_trial_complete(iteration=1, trials=[], trial=trial)


# ---------------------------------------------------------------- commands


@contextmanager
def only_driver(
    run: RunFolder, take_over: bool = False, tell: Callable[[str], None] = print
) -> Iterator[int]:
    """As sweep.session.hold.only_driver, where each driver before this one is dead, and seen to be; no heart beats."""
    read_manifest(run)
    driver = Driver(run, tell, lives=lambda process: False, sleep=lambda seconds: None)
    try:
        driver.take(take_over)
        yield driver.session
    finally:
        driver.let_go()


def once(read: Callable[..., Any]) -> Callable[..., Any]:
    """Reads a file as `read` does, but the same bytes once."""
    known: dict[tuple[object, ...], Any] = {}

    def reading(path: Path, *given: Any) -> Any:
        key = (path.read_bytes(), *map(str, given))
        if key not in known:
            known[key] = read(path, *given)
        return known[key]

    return reading


def resolve(
    run: Run, console: PlainConsole, address: str, store_limit: int | None = None
) -> Resolved:
    """As sweep.on_ray.resolve.resolve, which asks Ray."""
    manifest, config = run.manifest, run.config
    granted = Allocation(0.0, 1, 1)
    settings = run.settings or RunSettings(
        folder=config.folder,
        images=config.data.images,
        image_size=config.data.image_size,
        weights=config.model.weights,
        width=config.model.width,
        epochs=config.epochs,
        metric=config.metric,
        collapse_epochs=None,
    )
    if manifest.sharing is None:
        manifest = manifest.with_resources(granted.granted(), None, None)
        manifest = manifest.with_settings(settings, {"why": "nothing is shared"})
    return Resolved(manifest, settings, granted, [])


def refuse(*given: object) -> None:
    raise RequestError("no such node")


@dataclass
class Sessions:
    """The commands of one person, on one run."""

    config: SweepConfig
    prepared: prepare.Prepared
    run: RunFolder = field(init=False)

    def __post_init__(self) -> None:
        self.run = RunFolder(self.config.folder)

    def start(self, refused: bool = False) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if refused:
                patch.setattr(launcher, "resolve", refuse)
            commands.start(self.config, ["sweep", "run"])

    def resume(self, take_over: bool = False) -> None:
        self._change(lambda run, command, begin: Change(open_held_run(run)), take_over)

    def extend(self, request: Request) -> None:
        self._change(lambda run, command, begin: extend(run, request, command))

    def replicate(self, top: int, seeds: int) -> None:
        self._change(lambda run, command, begin: replicate(run, top, seeds, command))

    def test(self) -> None:
        final_test(self.run.path)

    def _change(
        self, change: Callable[[RunFolder, list[str], Begin], Change], take_over: bool = False
    ) -> None:
        with pytest.raises(typer.Exit):
            commands._change(self.run.path, "local", None, take_over, change)


def make_sessions(faces: Faces, storage: Path, patch: pytest.MonkeyPatch) -> Sessions:
    """A sweep of five trials of three epochs: ASHA compares after each, one diverges, one fails, one keeps weights."""
    trial = {"strategy": "head", "lr": list(RATES), "epochs": 3, "batch_size": 8}
    facts = sweep_facts(
        faces,
        storage,
        trial,
        search={"method": "random", "trials": 5, "first": [{"lr": rate} for rate in RATES]},
        asha={"grace_period": 1, "reduction_factor": 2},
        keep={"best": 1},
        metric="val_loss",
        resources={"retries": 0},
        sharing="off",
    )
    config = check_config(facts, {}, "test")
    prepared = prepare.prepare(config)
    stand_in(prepared, patch)
    return Sessions(config, prepared)


def stand_in(prepared: prepare.Prepared, patch: pytest.MonkeyPatch) -> None:
    """Put in what takes the place of Tune, the network, and what is slow to read."""
    digest = prepared.backbone.digest()
    backbone: Any = SimpleNamespace(digest=lambda: digest)
    ready = prepare.Prepared(prepared.data, backbone, prepared.warnings)
    images = prepared.data.split[["file", "sha256"]]

    def load(run: RunSettings) -> Any:
        return open_data(RunFolder(run.folder).split, run.images, run.image_size), backbone

    open_data, config_of = once(open_training_data), open_run_module.config_of
    known: dict[str, SweepConfig] = {}

    def known_config(folder: RunFolder, manifest: Manifest) -> SweepConfig:
        text = manifest.configuration.text
        if text not in known:
            known[text] = config_of(folder, manifest)
        return known[text]

    patch.setattr(open_run_module, "config_of", known_config)
    patch.setattr(state_module, "load_state", once(state_module.load_state))
    patch.setattr(commands, "console", PlainConsole(file=io.StringIO()))
    patch.setattr(commands, "only_driver", only_driver)
    patch.setattr(beginning, "only_driver", only_driver)
    patch.setattr(commands, "_own_ray", lambda config, address: nullcontext())
    patch.setattr(commands, "_check_place", lambda config, address: None)
    patch.setattr(prepare, "prepare", lambda config, begin: ready)
    patch.setattr(prepare, "inspect_images", lambda *given: SimpleNamespace(images=images))
    patch.setattr(prepare, "read_split", once(read_split))
    patch.setattr(prepare, "load_backbone", lambda *given: backbone)
    patch.setattr("sweep.show.plan.show_data", lambda prepared, console: None)
    patch.setattr(run_folder, "git_state", lambda: (None, None))
    patch.setattr(cluster, "cluster", lambda *given: nullcontext(""))
    patch.setattr(cluster, "nodes", list)
    patch.setattr(launcher, "resolve", resolve)
    patch.setattr(launcher, "code_digest", str)  # of so many sessions, of the same code
    patch.setattr(tune, "Tuner", OneAfterAnother)
    patch.setattr(Interruption, "watch", lambda self: None)
    patch.setattr(Writer, "has_died", lambda self: False)

    for name in ("keep_freed_memory", "import_before_training", "give_back_idle_memory"):
        patch.setattr(trial_module, name, lambda: None)
    patch.setattr(trial_module, "_load", load)
    patch.setattr(trial_module, "Gauge", lambda *given, **named: SimpleNamespace(set=_nothing))
    patch.setattr(trial_module, "Behind", Later)
    patch.setattr(ray, "get_gpu_ids", list)
    patch.setattr(FaceTrial, "__repr__", lambda self: "slot")
    patch.setattr(fit_module, "build_model", build_model)
    patch.setattr(fit_module, "TrainingSteps", Network)
    patch.setattr(fit_module, "Plain", _plain)
    patch.setattr(fit_module, "_logits", lambda model, labels, run: logits_of(model, labels))
    patch.setattr(fit_module, "measure", measure)
    patch.setattr(fit_module, "multiply_adds", lambda *given: 0)
    patch.setattr(fit_module, "DISK_BYTES_PER_SECOND", 16)  # the guess for one number: a second
    patch.setattr(fit_module, "time", Clock)

    patch.setattr(winner_module, "load_backbone", lambda *given: backbone)
    patch.setattr(winner_module, "build_model", build_model)
    patch.setattr(test_module, "evaluation_batches", lambda model, run, images: images.labels)
    patch.setattr(test_module, "_told", lambda labels, advance: labels)
    patch.setattr(test_module, "predict", lambda model, labels, run: logits_of(model, labels))
    patch.setattr(test_module, "as_parquet", lambda mistakes, images: b"thumbnails" * 200)


def _nothing(*given: object) -> None:
    """Is to be done."""


def _plain(config: TrialConfig, run: RunSettings, data: Any, model: TransferVGG16) -> Any:
    """In the place of the frozen layers; instead of batches it gives labels."""
    labels = data.validation.labels
    return SimpleNamespace(resident_validation=lambda work: None, validation=lambda work: labels)
