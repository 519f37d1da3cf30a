"""One session of a sweep: cluster, resources, Tuner, signals, exit code. What ends here goes on from the records."""

import logging
import os
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sweep import cluster
from sweep.bookkeeper import Bookkeeper
from sweep.interruption import Exit, Interruption
from sweep.open_run import Run, open_held_run
from sweep.own_ray import OwnRay
from sweep.progress import Board, Terminal
from sweep.resolve import Resolved, resolve
from sweep.run_folder import close_session, open_session
from sweep.scheduler import RungScheduler, catch_up, relearn, settle
from sweep.searcher import RecordSearcher
from sweep.shares import most_on_a_node, writes_behind
from sweep.study import asked_in_all
from sweep.workers import Unwritten
from trainable.command import PlainConsole, devices_said
from trainable.config import RequestError, RunFault
from trainable.faults import fault_of_run, folder_gone
from trainable.manifest import SessionEnd
from trainable.record import RunFolder, StaleSession
from trainable.rows import Status
from trainable.trial import FaceTrial

from ray import tune  # isort: skip  after sweep.cluster, which sets what Ray reads when it is imported

LOG = logging.getLogger(__name__)


def run_session(
    folder: Path,
    session: int,
    address: str,
    own: OwnRay | None,
    console: PlainConsole,
    store_limit: int | None = None,
) -> Exit:
    """Go on with the run in `folder`, which the caller holds with this number, until it is complete or interrupted.

    Raises:
        RequestError: the cluster or the request can't be used.
        RunFault: the run has a fault: a full disk, a changed image.
    """
    held = open_held_run(RunFolder(folder.absolute()))
    run = held.folder
    interruption = Interruption()
    has_begun = False
    complete = False
    try:
        if own is None or not own.has_started:
            console.print("waiting for Ray …", style="bright_black")
        with cluster.cluster(address, run.log, own) as dashboard:
            interruption.watch()
            try:
                resolved = resolve(held, console, address, store_limit)
                open_session(run, session, resolved.devices)
                has_begun = True
                _greet(console, run, resolved, dashboard)
                complete = _tune(held, resolved, session, dashboard, console, interruption)
                if not complete and not interruption.how:
                    interruption.how = SessionEnd.SIGINT  # Tune caught it, and ended orderly
            except KeyboardInterrupt:
                interruption.how = interruption.how or SessionEnd.SIGINT
            finally:
                interruption.begin_to_end()
    except (
        Exception
    ) as error:  # of Ray, or of the disk: what is on record stays, and another session can go on
        if isinstance(error, RequestError) and not (has_begun and folder_gone(run)):
            raise
        if fault := fault_of_run(run, error):
            interruption.how, interruption.fault = SessionEnd.FAULT, fault
        else:
            with run.log.open("a") as log:
                traceback.print_exc(file=log)
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            console.print(
                f"error: {reason[:300]}; all of it: {run.log}", style="red", soft_wrap=True
            )
    finally:
        if has_begun:
            # what another driver has taken over is his to write, and a full disk takes nothing
            with suppress(StaleSession, RequestError, OSError):
                _mark_interrupted(run, session)
                how = interruption.how or SessionEnd.ERROR
                close_session(run, session, SessionEnd.FINISHED if complete else how)
        interruption.leave()
    # a folder that is gone may have ended it by a signal
    interruption.fault = interruption.fault or folder_gone(run)
    if interruption.fault:
        raise RunFault(f"{interruption.fault}; `sweep resume {run.path}` goes on then")
    return _farewell(run, complete, interruption.how, console)


def _tune(
    held: Run,
    resolved: Resolved,
    session: int,
    dashboard: str,
    console: PlainConsole,
    interruption: Interruption,
) -> bool:
    """Run Tune over what the records leave to do; True when nothing is left."""
    run, config, granted = held.folder, held.config, resolved.granted
    nodes = cluster.nodes()
    # Otherwise Tune starts one actor after another, each some seconds long; our searcher holds back by itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(granted.concurrent)
    settle(run, config.metric, session)
    asked = asked_in_all(config, run.trials())
    board = Board(config.name, config.metric, config.epochs, asked, dashboard)
    terminal = Terminal(board, console)
    rungs = relearn(config, run)
    if rungs is not None:
        catch_up(rungs, config, run, session)
    unwritten = Unwritten(run, session, config.resources.retries, config.guards.hung_after)
    searcher = RecordSearcher(config, run, session, granted.concurrent, unwritten, interruption)
    keeper = Bookkeeper(run, config, session, terminal, interruption, searcher, granted, unwritten)
    scheduler = RungScheduler(rungs, config, run, session)
    tuner = tune.Tuner(
        FaceTrial,
        param_space={
            "run": resolved.settings.model_dump(mode="json"),
            "session": session,
            "resources": granted.bundle(),
            "workers": most_on_a_node(nodes, granted),
            "behind": writes_behind(nodes, granted),
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
            callbacks=[keeper],
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


def _greet(console: PlainConsole, run: RunFolder, resolved: Resolved, dashboard: str) -> None:
    settings, granted = resolved.settings, resolved.granted
    gpu = f"{granted.gpus:g} GPU, " if granted.gpus else ""
    console.print(
        f"{run.path}: {granted.concurrent} trials at a time, each {gpu}{granted.cpus} CPU, "
        f"{settings.device}, {settings.precision}",
        soft_wrap=True,
    )
    for device in devices_said(resolved.devices):
        console.print(device, soft_wrap=True)
    if dashboard:
        console.print(
            f"Ray dashboard: {dashboard} (`ray get-auth-token` prints what it asks for)",
        )


def _farewell(
    run: RunFolder, complete: bool, how: SessionEnd | None, console: PlainConsole
) -> Exit:
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
        f"interrupted ({how or SessionEnd.ERROR}): {ended} trials ended; `sweep resume {run.path}` goes on",
        soft_wrap=True,
    )
    if how is None:
        return Exit.TRIALS_FAILED
    return Exit.TERMINATED if how is SessionEnd.SIGTERM else Exit.INTERRUPTED
