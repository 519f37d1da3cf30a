"""One session of a sweep: cluster, resources, Tuner, signals, exit code. The next one continues from the records."""

import os
import traceback
from contextlib import ExitStack, suppress
from dataclasses import replace

from ray import tune

from sweep.on_ray import cluster
from sweep.on_ray.bookkeeper import Bookkeeper
from sweep.on_ray.own_ray import OwnRay
from sweep.on_ray.resolve import Resolved, resolve
from sweep.on_ray.scheduler import RungScheduler
from sweep.on_ray.searcher import RecordSearcher
from sweep.on_ray.workers import Unwritten
from sweep.request.open_run import HeldRun, Run
from sweep.resources.allocation import most_on_a_node, writes_behind
from sweep.search.study import asked_in_all
from sweep.session.beginning import BeginSession
from sweep.session.interruption import Interruption
from sweep.session.rungs import catch_up, relearn, settle
from sweep.session.sessions import close_session, open_session
from sweep.show.progress import Board, Terminal
from trainable.errors import RequestError, RunFault
from trainable.installation import code_digest, place
from trainable.records.faults import fault_of_run, folder_gone
from trainable.records.manifest import SessionEnd
from trainable.records.paths import StaleSession
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.show.exit_codes import Exit
from trainable.show.terminal import PlainConsole
from trainable.show.wording import devices_said
from trainable.trial import FaceTrial


def run_session(
    run: Run,
    begin: BeginSession,
    address: str,
    own: OwnRay | None,
    console: PlainConsole,
    store_limit: int | None = None,
) -> Exit:
    """Continue a run until it is complete or interrupted. `begin` locks it, once nothing can be refused any more.

    Raises:
        RequestError: the cluster or the request can't be used.
        RunFault: the run has a fault, such as a full disk or a changed image.
    """
    interruption = Interruption()
    held: HeldRun | None = None
    complete = False
    with ExitStack() as hold:
        try:
            console.log_to(run.folder.log)
            if own is None or not own.has_started:
                console.print("waiting for Ray …", style="bright_black")
            with cluster.cluster(address, run.folder.log, own) as dashboard:
                interruption.watch()
                try:
                    interruption.obey()
                    resolved = resolve(run, console, address, store_limit)
                    held = hold.enter_context(begin(resolved.manifest))
                    granted = resolved.granted.granted()
                    open_session(held.folder, held.session, resolved.devices, granted)
                    _greet(console, held.folder, resolved, dashboard)
                    complete = _tune(held, resolved, dashboard, console, interruption)
                    if not complete and not interruption.how:
                        interruption.how = SessionEnd.SIGINT  # Tune caught it and ended cleanly
                except KeyboardInterrupt:
                    interruption.how = interruption.how or SessionEnd.SIGINT
                finally:
                    interruption.begin_to_end()
        except Exception as error:
            # from Ray or the disk: what is on record stays, and another session can continue
            folder = held.folder if held else run.folder
            if isinstance(error, RequestError) and not (held and folder_gone(folder)):
                raise
            if fault := fault_of_run(folder, error):
                interruption.how, interruption.fault = SessionEnd.FAULT, fault
            else:
                _say_error(error, held, console)
        finally:
            if held:
                _close(held, SessionEnd.FINISHED if complete else interruption.how)
            interruption.leave()
        if held is None:
            return _not_begun(interruption, console)
        # if the folder is gone, that may have ended the session by a signal
        if fault := interruption.fault or folder_gone(held.folder):
            text = f"{fault}; then `sweep resume {held.folder.path}` continues the run"
            console.note(text)
            raise RunFault(text)
        return _farewell(held.folder, complete, interruption.how, console)


def _tune(
    run: HeldRun,
    resolved: Resolved,
    dashboard: str,
    console: PlainConsole,
    interruption: Interruption,
) -> bool:
    """Run Tune on what is left to do by the records; True when nothing is left."""
    folder, config, granted = run.folder, run.config, resolved.granted
    nodes = cluster.nodes()
    # Otherwise Tune starts actors one after another, seconds each; our searcher limits itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(granted.concurrent)
    settle(run)
    asked = asked_in_all(config, folder.trials())
    board = Board(config.name, config.metric, config.epochs, asked, dashboard)
    terminal = Terminal(board, console)
    rungs = relearn(config, folder)
    if rungs is not None:
        catch_up(rungs, run)
    unwritten = Unwritten(folder, run.session, config.resources.retries, config.guards.hung_after)
    searcher = RecordSearcher(run, granted.concurrent, unwritten, interruption)
    keeper = Bookkeeper(run, terminal, interruption, searcher, granted, unwritten)
    settings = resolved.settings.model_copy(update={"folder": folder.path})
    tuner = tune.Tuner(
        FaceTrial,
        param_space={
            "run": settings.model_dump(mode="json"),
            "session": run.session,
            "resources": granted.bundle(),
            "workers": most_on_a_node(nodes, granted),
            "behind": writes_behind(nodes, granted),
            "code": {"place": str(place()), "digest": code_digest()},
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RungScheduler(rungs, run),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"session-{run.session}",
            storage_path=str(folder.ray),
            verbose=0,
            callbacks=[keeper],
            failure_config=tune.FailureConfig(max_failures=config.resources.retries),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False, checkpoint_frequency=0
            ),
        ),
    )
    interruption.obey()
    with terminal:
        tuner.fit()
    return searcher.is_complete


def _close(run: HeldRun, how: SessionEnd | None) -> None:
    """Record how a session ended and which trials were running; their actors are gone by now.

    A run that another driver has taken over is left to that driver, and a full disk can't be written to.
    """
    with suppress(StaleSession, RequestError, OSError):
        for record in run.folder.trials():
            status = record.status()
            if status.status is Status.RUNNING:
                reason = f"session {run.session} ended"
                interrupted = replace(status, status=Status.INTERRUPTED, reason=reason)
                run.trial(record.trial_id).write_status(interrupted)
        close_session(run.folder, run.session, how or SessionEnd.ERROR)


def _say_error(error: Exception, held: HeldRun | None, console: PlainConsole) -> None:
    """Report what Ray or a library raised; the traceback goes to the run's log, or to the terminal without a run."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
    if held is None:
        console.print("".join(traceback.format_exception(error)).rstrip(), soft_wrap=True)
        console.print(f"error: {reason}", style="red", soft_wrap=True)
        return
    log = held.folder.log
    with log.open("a") as file:
        traceback.print_exception(error, file=file)
    console.print(f"error: {reason}; the traceback is in {log}", style="red", soft_wrap=True)


def _not_begun(interruption: Interruption, console: PlainConsole) -> Exit:
    """Report that nothing of the request is on record, and why.

    Raises:
        RequestError: there is a fault that must be fixed first.
    """
    if interruption.fault:
        raise RequestError(f"{interruption.fault}; nothing was started, so run the command again")
    how = interruption.how or SessionEnd.ERROR
    console.print(f"ended before it began ({how}): nothing was recorded; run the command again")
    return _exit_of(interruption.how)


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
            f"Ray dashboard: {dashboard} (`ray get-auth-token` prints the token it asks for)",
        )
    else:
        console.print(
            "no Ray dashboard: it did not start in time, or this cluster does not run one"
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
        f"interrupted ({how or SessionEnd.ERROR}): {ended} trials ended; `sweep resume {run.path}` continues the run",
        soft_wrap=True,
    )
    return _exit_of(how)


def _exit_of(how: SessionEnd | None) -> Exit:
    """The exit code of a session that did not finish; None: it ended by an error."""
    if how is None:
        return Exit.TRIALS_FAILED
    return Exit.TERMINATED if how is SessionEnd.SIGTERM else Exit.INTERRUPTED
