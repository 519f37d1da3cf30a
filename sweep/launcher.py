"""One session of a sweep: cluster, resources, Tuner, signals, exit code. What ends here goes on from the records."""

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from sweep import cluster
from sweep.config import SweepConfig
from sweep.manifest import close_session, open_session, read_config
from sweep.progress import Board, Line, Terminal
from sweep.ranking import Standing, bar, standing, to_keep
from sweep.scheduler import RungScheduler, catch_up, relearn, settle
from sweep.searcher import RecordSearcher
from sweep.sharing import PROBED_IMAGES, cuts_of, decide_for
from trainable.config import RequestError, RunSettings
from trainable.data import read_split
from trainable.files import now, write_json
from trainable.record import NOTE_SECONDS, RunFolder, StaleSession
from trainable.rows import Status
from trainable.trial import FaceTrial

from ray import tune  # isort: skip  after sweep.cluster, which sets what Ray reads when it is imported

LOG = logging.getLogger(__name__)


class Exit(IntEnum):
    """Exit codes of the commands."""

    WELL = 0
    TRIALS_FAILED = 1
    REQUEST = 2
    INTERRUPTED = 130
    TERMINATED = 143


class Interruption:
    """SIGINT, SIGTERM and the time limit end Tune in its own orderly way; a second signal ends at once."""

    def __init__(self) -> None:
        self.how = ""

    @contextmanager
    def watching(self, time_limit: float | None) -> Iterator[None]:
        """Turn SIGTERM and the limit into SIGUSR1, on which Tune ends as on Ctrl-C.

        Begins after Ray has started, since Ray then sets a handler of its own, which saves nothing.
        """

        def early(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        def terminate(number: int, frame: FrameType | None) -> None:
            if self.how:
                os._exit(Exit.TERMINATED)
            self.how = "SIGTERM"
            os.kill(os.getpid(), signal.SIGUSR1)

        def expire() -> None:
            self.how = "time limit"
            os.kill(os.getpid(), signal.SIGUSR1)

        before = {
            number: signal.signal(number, handler)
            for number, handler in ((signal.SIGUSR1, early), (signal.SIGTERM, terminate))
        }
        before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        timer = threading.Timer(time_limit, expire) if time_limit else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            yield
        except KeyboardInterrupt:
            self.how = self.how or "SIGINT"
        finally:
            if timer:
                timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)


class Bookkeeper(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Keeps the terminal and the run folder up to date as trials come and go."""

    def __init__(
        self, run: RunFolder, config: SweepConfig, session: int, terminal: Terminal
    ) -> None:
        self._run = run
        self._config = config
        self._session = session
        self._terminal = terminal
        self._holding: dict[str, Standing] = {}
        """Ended trials that may have weights on disk."""
        self._remarked = False
        self._look_again = 0.0
        run.bar.unlink(missing_ok=True)  # a finished trial may have been asked to go on since
        for record in run.trials():
            self._note(record.trial_id)
        self._let_go()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks at the start, and we never read that back."""
        return {}

    def _note(self, trial_id: str) -> None:
        """Bring board and standings to what the record says."""
        record = self._run.trial(trial_id)
        rows, status = record.rows(), record.status()
        found = standing(record, self._config.metric)
        metric = self._config.metric
        self._terminal.board.lines[trial_id] = Line(
            record.origin.settings,
            record.origin.number,
            status.status,
            epoch=len(rows),
            value=getattr(rows[-1], metric.value) if rows else None,
            best=metric.score(found.score) if found else None,
            slot=status.slot,
        )
        if found is not None and self._terminal.board.is_over(self._terminal.board.lines[trial_id]):
            self._holding[trial_id] = found  # one that goes on needs its state, whatever its rank

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        if (
            trial.num_failures == 0
        ):  # those of earlier sessions count; below zero Tune would never give up
            failures = self._run.trial(trial_id).status().failures
            trial.max_failures = max(self._config.resources.retries - failures, 0)
        self._note(trial_id)
        self._terminal.started(trial_id, self._run.trial(trial_id).status().slot)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("remark") and not self._remarked:
            self._remarked = True
            self._terminal.say(f"frozen features are not shared any more: {result['remark']}")
        if "epoch" in result:
            trial_id = trial.config["trial_id"]
            if result["epoch"] == 1 or not self._terminal.board.lines[trial_id].slot:
                self._terminal.started(trial_id, self._run.trial(trial_id).status().slot)
            self._terminal.epoch(trial_id, result["epoch"], result["value"], result["best_value"])

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Now and then, what running trials say of a long step."""
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + NOTE_SECONDS
        for trial_id, line in self._terminal.board.lines.items():
            if line.status is Status.RUNNING:
                line.note = self._run.trial(trial_id).status().reason

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Show the end."""
        trial_id = trial.config["trial_id"]
        self._note(trial_id)
        status = self._run.trial(trial_id).status()
        self._terminal.ended(trial_id, status.status, status.reason)
        self._let_go()

    def _let_go(self) -> None:
        """Delete weights that no longer belong to the best, and tell trials what they must reach to write theirs."""
        best = self._config.keep.best
        kept = to_keep(self._holding.values(), best)
        for trial_id in self._holding.keys() - kept:
            self._run.trial(trial_id, self._session).forget_weights()
            del self._holding[trial_id]
        if (key := bar(self._holding.values(), best)) is not None:
            write_json(self._run.bar, {"key": list(key)})

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial that died or raised an exception, and is tried again."""
        record = self._run.trial(trial.config["trial_id"], self._session)
        status = record.status()
        record.write_status(replace(status, failures=status.failures + 1))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial whose retries are used up: its record gets the traceback."""
        trial_id = trial.config["trial_id"]
        record = self._run.trial(trial_id, self._session)
        error = trial.get_error()
        with record.log.open("a") as log:
            log.write(f"{now()} failed for good:\n{error}\n")
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        record.write_status(
            replace(
                record.status(),
                status=Status.FAILED,
                reason=f"{reason[:300]}; its log: {record.log}",
                ended=now(),
                seconds=sum(row.seconds for row in record.rows()),
            )
        )
        self._note(trial_id)
        self._terminal.ended(trial_id, Status.FAILED, record.status().reason)


def run_session(
    folder: Path, address: str, console: Console, store_limit: int | None = None
) -> Exit:
    """Go on with the run in `folder`, which the caller holds, until it is complete or interrupted.

    Raises:
        RequestError: the cluster or the request can't be used.
    """
    run = RunFolder(folder.absolute())
    config = read_config(run)
    interruption = Interruption()
    session = None
    complete = False
    try:
        console.print("starting Ray …", style="bright_black")
        with (
            cluster.cluster(address, run.log) as dashboard,
            interruption.watching(config.search.time_limit),
        ):
            settings, granted = _resolve(run, config, console)
            if store_limit is not None and settings.sharing is not None:
                limited = settings.sharing.model_copy(update={"limit_bytes": store_limit})
                settings = settings.model_copy(update={"sharing": limited})
            session = open_session(run)
            _greet(console, run, settings, granted, dashboard)
            complete = _tune(run, config, settings, granted, session, dashboard, console)
            if not complete and not interruption.how:
                interruption.how = "SIGINT"  # Tune caught it, and ended orderly
    except RequestError:
        raise
    except (
        Exception
    ) as error:  # Ray's own failures: what is on record stays, and another session can go on
        with run.log.open("a") as log:
            traceback.print_exc(file=log)
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        console.print(f"error: {reason[:300]}; all of it: {run.log}", style="red", soft_wrap=True)
    finally:
        if session is not None:
            with suppress(StaleSession):  # what another driver has taken over is his to write
                _mark_interrupted(run, session)
            how = "finished" if complete else interruption.how or "error"
            close_session(run, session, how)
    return _farewell(run, complete, interruption.how, console)


def _resolve(
    run: RunFolder, config: SweepConfig, console: Console
) -> tuple[RunSettings, cluster.Share]:
    """What all trials share; device, number format and threads stay as the first session resolved them."""
    manifest = run.read_manifest()
    found = cluster.nodes()
    granted = cluster.share(config.resources, found, config.trials)
    images = Path(manifest["image_folder"])
    first = str(read_split(run.split, ("train",))["file"].iloc[0])
    looks = cluster.inspect(found, run.path, images, first, len(manifest["sessions"]) + 1)
    if "settings" in manifest:
        settings = RunSettings(
            **manifest["settings"]
            | {"folder": run.path, "epochs": config.epochs, "store": own_store()}
        )
        if settings.device == "cuda" and not any(look["gpu"] for look in looks):
            raise RequestError(
                f"{run.path} was begun on GPUs and must go on on them, but this cluster has none"
            )
        if granted.cpus != manifest["resources"]["cpus_per_trial"]:
            LOG.warning("trials keep %d threads, as at the start", settings.threads)
        if "sharing" not in manifest:  # the run was extended
            plain = settings.model_copy(update={"sharing": None})
            settings, manifest["sharing"] = _share_work(run, config, plain, granted, console)
            manifest["settings"] = settings.model_dump(mode="json")
            write_json(run.manifest, manifest)
        return settings, granted
    on_gpu = granted.gpus > 0 and any(look["gpu"] for look in looks)
    precision = config.resources.precision
    if precision == "auto":
        bfloat16 = on_gpu and all(look["bfloat16"] for look in looks if look["gpu"])
        precision = "bfloat16" if bfloat16 else "float32"
    settings = RunSettings(
        folder=run.path,
        images=images,
        image_size=config.data.image_size,
        weights=config.model.weights,
        width=config.model.width,
        epochs=config.epochs,
        metric=config.metric,
        collapse_epochs=config.guards.collapse_epochs,
        device="cuda" if on_gpu else "cpu",
        precision=precision,
        threads=granted.cpus,
        workers=granted.cpus,
        store=own_store(),
        store_format=config.store.format if precision == "float32" else "computed",
    )
    settings, manifest["sharing"] = _share_work(run, config, settings, granted, console)
    manifest["settings"] = settings.model_dump(mode="json")
    manifest["resources"] = {
        "gpus_per_trial": granted.gpus,
        "cpus_per_trial": granted.cpus,
        "concurrent": granted.concurrent,
    }
    write_json(run.manifest, manifest)
    return settings, granted


def own_store() -> Path | None:
    """`SWEEP_STORE` as it is set here goes for every node; where it is not, each node has its own default."""
    return Path(os.environ["SWEEP_STORE"]).absolute() if os.environ.get("SWEEP_STORE") else None


def _share_work(
    run: RunFolder,
    config: SweepConfig,
    settings: RunSettings,
    granted: cluster.Share,
    console: Console,
) -> tuple[RunSettings, dict[str, Any]]:
    """Decide by measured rates what frozen work is kept; the settings with it, and what the manifest says of it."""
    if config.sharing == "off":
        return settings, {"off": "sharing: off"}
    rows = read_split(run.split, ("train", "validation"))
    images = [settings.images / file for file in rows["file"].iloc[:PROBED_IMAGES]]
    rates = cluster.measure(
        granted,
        settings.weights,
        settings.width,
        cuts_of(config),
        images,
        settings.image_size,
        settings.threads,
        settings.device,
        settings.precision,
        config.store.limit,
        settings.store,
    )
    if isinstance(rates, str):
        console.print(
            f"[yellow]warning:[/yellow] frozen features are not shared, since the store can't be used: {rates}",
            highlight=False,
            soft_wrap=True,
        )
        return settings, {"off": rates}
    training = int((rows["part"] == "train").sum())
    decision = decide_for(
        config, rates, training, len(rows) - training, settings.precision == "bfloat16"
    )
    console.print(decision.said(), highlight=False, soft_wrap=True)
    sharing = decision.sharing(config.store.limit, granted.gpus)
    return settings.model_copy(update={"sharing": sharing}), decision.facts()


def _tune(
    run: RunFolder,
    config: SweepConfig,
    settings: RunSettings,
    granted: cluster.Share,
    session: int,
    dashboard: str,
    console: Console,
) -> bool:
    """Run Tune over what the records leave to do; True when nothing is left."""
    # Otherwise Tune starts one actor after another, each some seconds long; our searcher holds back by itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(granted.concurrent)
    settle(run, config.metric, session)
    asked = config.asked_for(record.trial_id for record in run.trials())
    board = Board(config.name, config.metric, config.epochs, asked, dashboard)
    terminal = Terminal(board, console)
    rungs = relearn(config, run)
    if rungs is not None:
        catch_up(rungs, config, run, session)
    searcher = RecordSearcher(config, run, session, granted.concurrent)
    scheduler = RungScheduler(rungs, config, run, session)
    tuner = tune.Tuner(
        FaceTrial,
        param_space={
            "run": settings.model_dump(mode="json"),
            "session": session,
            "resources": granted.bundle(),
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"session-{session}",
            storage_path=str(run.ray),
            verbose=0,
            callbacks=[Bookkeeper(run, config, session, terminal)],
            failure_config=tune.FailureConfig(max_failures=config.resources.retries),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False, checkpoint_frequency=0
            ),
        ),
    )
    with terminal:
        tuner.fit()
    return searcher.is_complete


def _mark_interrupted(run: RunFolder, session: int) -> None:
    """Trials that were under way; their actors are gone by now."""
    for record in run.trials():
        status = record.status()
        if status.status is Status.RUNNING:
            run.trial(record.trial_id, session).write_status(
                replace(status, status=Status.INTERRUPTED, reason=f"session {session} ended")
            )


def _greet(
    console: Console, run: RunFolder, settings: RunSettings, granted: cluster.Share, dashboard: str
) -> None:
    gpu = f"{granted.gpus:g} GPU, " if granted.gpus else ""
    console.print(
        f"{run.path}: {granted.concurrent} trials at a time, each {gpu}{granted.cpus} CPU, "
        f"{settings.device}, {settings.precision}",
        highlight=False,
        soft_wrap=True,
    )
    if dashboard:
        console.print(
            f"Ray dashboard: {dashboard} (`ray get-auth-token` prints what it asks for)",
            highlight=False,
        )


def _farewell(run: RunFolder, complete: bool, how: str, console: Console) -> Exit:
    """Say how it ended and what to type next."""
    statuses = [record.status().status for record in run.trials()]
    failed = statuses.count(Status.FAILED)
    ended = sum(status.has_ended for status in statuses)
    if complete:
        console.print(
            f"finished: {ended} trials ended, {failed} failed\n"
            f"next: analysis results {run.path}; analysis test {run.path}; analysis report {run.path}",
            highlight=False,
            soft_wrap=True,
        )
        return Exit.TRIALS_FAILED if failed else Exit.WELL
    console.print(
        f"interrupted ({how or 'error'}): {ended} trials ended; `sweep resume {run.path}` goes on",
        highlight=False,
        soft_wrap=True,
    )
    if not how:
        return Exit.TRIALS_FAILED
    return Exit.TERMINATED if how == "SIGTERM" else Exit.INTERRUPTED
