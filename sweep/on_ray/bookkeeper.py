"""What the driver does while trials run: terminal, weights to delete, failures, silent trials, new nodes."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from sweep.on_ray import cluster
from sweep.on_ray.searcher import RecordSearcher
from sweep.on_ray.workers import Silence, Unwritten, give_up
from sweep.request.open_run import HeldRun
from sweep.resources.allocation import Allocation, at_a_time
from sweep.search.ranking import Standing, bar, standing, to_keep
from sweep.session.interruption import Interruption
from sweep.show.progress import Line, Terminal
from trainable.records.faults import folder_gone
from trainable.records.files import current_disk, write_json
from trainable.records.manifest import SessionEnd
from trainable.records.paths import StaleSession
from trainable.records.rows import Outcome, Status
from trainable.records.trial_folder import NOTE_SECONDS, TrialRecord


class Bookkeeper(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Keeps the terminal and the run folder up to date as trials come and go."""

    def __init__(
        self,
        run: HeldRun,
        terminal: Terminal,
        interruption: Interruption,
        searcher: RecordSearcher,
        granted: Allocation,
        unwritten: Unwritten,
    ) -> None:
        self._run = run
        self._config = run.config
        self._terminal = terminal
        self._interruption = interruption
        self._searcher = searcher
        self._granted = granted
        self._unwritten = unwritten
        self._writing: set[str] = set()
        """Trials shown as ended whose weights were not all written when last checked."""
        self._silence = Silence(run.folder, run.config.guards.hung_after)
        self._holding: dict[str, Standing] = {}
        """Ended trials that may have weights on disk."""
        self._recovered: dict[str, int] = {}
        """By trial: the iteration of Tune in which it was last recovered."""
        self._forgiven = {r.trial_id for r in run.folder.trials() if r.status().eager}
        """Trials whose failed capture did not count as a failure: their next attempt runs eagerly."""
        self._remarked = False
        self._look_again = 0.0
        current_disk().unlink(run.folder.bar)  # a finished trial may have been extended since
        for record in run.folder.trials():
            self._note(record.trial_id)
        self._let_go()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks at the start, and we never read that back."""
        return {}

    def _note(self, trial_id: str, is_written: bool = False) -> None:
        """Update the board and the standings to what the record says, or will say once it is written."""
        record = self._run.trial(trial_id)
        rows, status = record.rows(), record.status()
        outcome = None if is_written else self._unwritten.outcome(trial_id)
        found = standing(record, self._config.metric)
        metric = self._config.metric
        self._terminal.board.lines[trial_id] = Line(
            record.asked.settings,
            record.asked.number,
            outcome.status if outcome else status.status,
            epoch=len(rows),
            value=getattr(rows[-1], metric.value) if rows else None,
            standing=found,
            slot=status.slot,
            origin=record.asked.origin,
        )
        is_over = self._terminal.board.is_over(self._terminal.board.lines[trial_id])
        if found is not None and is_over and outcome is None:
            self._holding[trial_id] = found  # one that continues needs its state

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._interruption.limit(self._config.search.time_limit)  # counted from the first trial
        self._look_at_writing()  # before one of them is shown as started again
        trial_id = trial.config["trial_id"]
        # failures in earlier sessions count; below zero Tune would never give up
        if trial.num_failures == 0:
            failures = self._run.trial(trial_id).status().failures
            trial.max_failures = max(self._config.resources.retries - failures, 0)
        self._note(trial_id)
        self._terminal.started(trial_id, self._run.trial(trial_id).status().slot)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "fault" in result:
            self._interruption.stop(SessionEnd.FAULT, result["fault"])
        if "status" in result:
            outcome = Outcome(Status(result["status"]), result["reason"])
            worker = trial.temporary_state.ray_actor
            self._unwritten.add(trial.config["trial_id"], worker, outcome)
        if result.get("remark") and not self._remarked:
            self._remarked = True
            self._terminal.say(f"frozen features are no longer shared: {result['remark']}")
        if "epoch" in result:
            trial_id = trial.config["trial_id"]
            self._note(trial_id)
            self._terminal.epoch(trial_id)

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        """Check whose weights are written by now; from time to time, also check what running trials report about a
        long step, which of them are silent, and which nodes exist."""
        self._look_at_writing()
        if time.monotonic() >= self._look_again:
            self._look_around(trials)
        self._interruption.end_here()

    def _look_around(self, trials: Any) -> None:
        self._look_again = time.monotonic() + NOTE_SECONDS
        for trial_id, line in self._terminal.board.lines.items():
            if line.status is Status.RUNNING:
                line.note = self._run.trial(trial_id).status().reason
        self._silence.end(
            (trial.config["trial_id"], worker)
            for trial in trials
            if trial.status == Trial.RUNNING
            and (worker := trial.temporary_state.ray_actor) is not None
            and not self._unwritten.writes(worker)  # this trial may be waiting for that
        )
        found = cluster.nodes()
        self._searcher.concurrent = at_a_time(
            self._config.resources, found, self._granted, self._config.trials
        )
        if not self._interruption.hears_signals:  # a lost hold comes as one
            if gone := folder_gone(self._run.folder):
                self._interruption.stop(SessionEnd.FAULT, gone)
            else:
                self._run.folder.refuse_stale(self._run.session)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Show how it ended, whether or not everything is written."""
        trial_id = trial.config["trial_id"]
        self._note(trial_id)
        outcome = self._unwritten.outcome(trial_id)
        if outcome is not None:
            self._writing.add(trial_id)
        status = outcome or self._run.trial(trial_id).status()
        self._terminal.ended(trial_id, status.status, status.reason)
        self._let_go()

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        """The workers have ended: the records say what was written. A run that was taken over is left alone."""
        if not self._writing:
            return
        for trial_id in self._writing:
            self._note(trial_id, is_written=True)
        with suppress(StaleSession):
            self._run.folder.refuse_stale(self._run.session)
            self._let_go()

    def _look_at_writing(self) -> None:
        """Rank the weights that are written by now with the others, and report those that were lost."""
        settled = {own for own in self._writing if self._unwritten.outcome(own) is None}
        for trial_id in settled:
            self._note(trial_id)
            status = self._run.trial(trial_id).status()
            if status.status is Status.FAILED:
                self._terminal.ended(trial_id, status.status, status.reason)
            elif not status.status.has_ended:
                self._terminal.say(f"trial {trial_id} will be retried: {status.reason}")
        self._writing -= settled
        if settled:
            self._let_go()

    def _let_go(self) -> None:
        """Delete weights that are no longer among the best, and tell trials what they must reach to write theirs."""
        best = self._config.keep.best
        kept = to_keep(self._holding.values(), best)
        for trial_id in self._holding.keys() - kept:
            self._run.trial(trial_id).forget_weights()
            del self._holding[trial_id]
        if (key := bar(self._holding.values(), best)) is not None:
            write_json(self._run.folder.bar, {"key": list(key)})

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Count the failure of a trial that died or raised an exception, and will be retried."""
        record = self._run.trial(trial.config["trial_id"])
        self._recovered[record.trial_id] = iteration
        status = record.status()
        if not self._is_forgiven(record) and not self._unwritten.is_counted(record):
            record.write_status(replace(status, failures=status.failures + 1))

    def _is_forgiven(self, record: TrialRecord) -> bool:
        """Did a capture fail, for the first and only time? The trial then runs eagerly, which is not a retry."""
        first = bool(record.status().eager) and record.trial_id not in self._forgiven
        if first:
            self._forgiven.add(record.trial_id)
            self._terminal.say(
                f"trial {record.trial_id} continues without a CUDA graph: {record.status().eager}"
            )
        return first

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record the traceback of a trial whose retries are used up.

        Tune also gives up a trial whose worker died between two trials: it recovers the trial, and then counts the
        same death as another failure. Such a trial is suggested again.
        """
        trial_id = trial.config["trial_id"]
        record = self._run.trial(trial_id)
        status = record.status()
        counts = (
            self._recovered.get(trial_id) != iteration
            and not self._is_forgiven(record)
            and not self._unwritten.is_counted(record)
        )
        failures = status.failures + counts
        if failures <= self._config.resources.retries:
            record.write_status(
                replace(
                    status, status=Status.INTERRUPTED, reason="its worker died", failures=failures
                )
            )
            self._note(trial_id)
            self._searcher.again(trial_id)
            return
        error = trial.get_error()
        record.say(f"failed for good:\n{error}")
        said = str(error).strip() if error is not None else "its worker ended before it could begin"
        reason = said.splitlines()[-1] if said else repr(error)
        give_up(record, self._silence.said.get(trial_id, reason))
        self._note(trial_id)
        self._terminal.ended(trial_id, Status.FAILED, record.status().reason)
