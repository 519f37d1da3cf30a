"""One session of a sweep: cluster, resources, Tuner, signals, exit code. What ends here goes on from the records."""

import logging
import os
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep import cluster
from sweep.bookkeeper import Bookkeeper
from sweep.config import SweepConfig
from sweep.interruption import Exit, Interruption
from sweep.manifest import close_session, open_session, read_config
from sweep.own_ray import OwnRay
from sweep.progress import Board, Terminal
from sweep.rates import PROBED_IMAGES
from sweep.scheduler import RungScheduler, catch_up, relearn, settle
from sweep.searcher import RecordSearcher
from sweep.sharing import cuts_of, decide_for
from sweep.study import asked_in_all
from trainable.command import PlainConsole
from trainable.config import RequestError, RunSettings
from trainable.data import read_split
from trainable.faults import fault_of_run
from trainable.files import write_json
from trainable.record import RunFolder, StaleSession
from trainable.rows import Status
from trainable.trial import FaceTrial

from ray import tune  # isort: skip  after sweep.cluster, which sets what Ray reads when it is imported

LOG = logging.getLogger(__name__)


def run_session(
    folder: Path,
    address: str,
    own: OwnRay | None,
    console: PlainConsole,
    store_limit: int | None = None,
) -> Exit:
    """Go on with the run in `folder`, which the caller holds, until it is complete or interrupted.

    Raises:
        RequestError: the cluster or the request can't be used, or the run has a fault: a full disk, a changed image.
    """
    run = RunFolder(folder.absolute())
    config = read_config(run)
    interruption = Interruption()
    session = None
    complete = False
    try:
        if own is None or not own.has_started:
            console.print("waiting for Ray …", style="bright_black")
        with cluster.cluster(address, run.log, own) as dashboard:
            interruption.watch(config.search.time_limit)
            try:
                settings, granted = _resolve(run, config, console, address)
                if store_limit is not None and settings.sharing is not None:
                    limited = settings.sharing.model_copy(update={"limit_bytes": store_limit})
                    settings = settings.model_copy(update={"sharing": limited})
                session = open_session(run)
                _greet(console, run, settings, granted, dashboard)
                complete = _tune(
                    run, config, settings, granted, session, dashboard, console, interruption
                )
                if not complete and not interruption.how:
                    interruption.how = "SIGINT"  # Tune caught it, and ended orderly
            except KeyboardInterrupt:
                interruption.how = interruption.how or "SIGINT"
            finally:
                interruption.begin_to_end()
    except RequestError:
        raise
    except (
        Exception
    ) as error:  # of Ray, or of the disk: what is on record stays, and another session can go on
        if fault := fault_of_run(run, error):
            interruption.how, interruption.fault = "fault", fault
        else:
            with run.log.open("a") as log:
                traceback.print_exc(file=log)
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            console.print(
                f"error: {reason[:300]}; all of it: {run.log}", style="red", soft_wrap=True
            )
    finally:
        if session is not None:
            # what another driver has taken over is his to write, and a full disk takes nothing
            with suppress(StaleSession, RequestError, OSError):
                _mark_interrupted(run, session)
                close_session(run, session, "finished" if complete else interruption.how or "error")
        interruption.leave()
    if interruption.fault:
        raise RequestError(f"{interruption.fault}; `sweep resume {run.path}` goes on then")
    return _farewell(run, complete, interruption.how, console)


def _resolve(
    run: RunFolder, config: SweepConfig, console: PlainConsole, address: str
) -> tuple[RunSettings, cluster.Share]:
    """What all trials share; device, number format and threads stay as the first session resolved them."""
    manifest = run.read_manifest()
    found = cluster.nodes()
    granted = cluster.share(config.resources, found, config.trials)
    images = Path(manifest["image_folder"])
    first = str(read_split(run.split, ("train",))["file"].iloc[0])
    here = address == "local" and not any(node.gpus for node in found)
    looks = cluster.inspect(
        found, run.path, images, first, len(manifest["sessions"]) + 1, here=here
    )
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
            settings, manifest["sharing"] = _share_work(run, config, plain, granted, here, console)
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
    settings, manifest["sharing"] = _share_work(run, config, settings, granted, here, console)
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
    here: bool,
    console: PlainConsole,
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
        here=here,
    )
    if isinstance(rates, str):
        console.warn(f"frozen features are not shared, since the store can't be used: {rates}")
        return settings, {"off": rates}
    training = int((rows["part"] == "train").sum())
    decision = decide_for(
        config, rates, training, len(rows) - training, settings.precision == "bfloat16"
    )
    console.print(decision.said(), soft_wrap=True)
    sharing = decision.sharing(config.store.limit, granted.gpus)
    return settings.model_copy(update={"sharing": sharing}), decision.facts()


def _tune(
    run: RunFolder,
    config: SweepConfig,
    settings: RunSettings,
    granted: cluster.Share,
    session: int,
    dashboard: str,
    console: PlainConsole,
    interruption: Interruption,
) -> bool:
    """Run Tune over what the records leave to do; True when nothing is left."""
    # Otherwise Tune starts one actor after another, each some seconds long; our searcher holds back by itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(granted.concurrent)
    settle(run, config.metric, session)
    asked = asked_in_all(config, run.trials())
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
            callbacks=[Bookkeeper(run, config, session, terminal, interruption, searcher, granted)],
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
    console: PlainConsole,
    run: RunFolder,
    settings: RunSettings,
    granted: cluster.Share,
    dashboard: str,
) -> None:
    gpu = f"{granted.gpus:g} GPU, " if granted.gpus else ""
    console.print(
        f"{run.path}: {granted.concurrent} trials at a time, each {gpu}{granted.cpus} CPU, "
        f"{settings.device}, {settings.precision}",
        soft_wrap=True,
    )
    if dashboard:
        console.print(
            f"Ray dashboard: {dashboard} (`ray get-auth-token` prints what it asks for)",
        )


def _farewell(run: RunFolder, complete: bool, how: str, console: PlainConsole) -> Exit:
    """Say how it ended and what to type next."""
    statuses = [record.status().status for record in run.trials()]
    failed = statuses.count(Status.FAILED)
    ended = sum(status.has_ended for status in statuses)
    if complete:
        console.print(
            f"finished: {ended} trials ended, {failed} failed\n"
            f"next: analysis results {run.path}; analysis test {run.path}; analysis report {run.path}",
            soft_wrap=True,
        )
        return Exit.TRIALS_FAILED if failed else Exit.WELL
    console.print(
        f"interrupted ({how or 'error'}): {ended} trials ended; `sweep resume {run.path}` goes on",
        soft_wrap=True,
    )
    if not how:
        return Exit.TRIALS_FAILED
    return Exit.TERMINATED if how == "SIGTERM" else Exit.INTERRUPTED
