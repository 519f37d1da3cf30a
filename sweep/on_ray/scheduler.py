"""asha.py as a Ray Tune scheduler: each decision is logged, then acted on."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweep.request.open_run import HeldRun
from sweep.search.asha import Rungs
from sweep.session.rungs import take
from trainable.records.rows import BROKEN


class RungScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray ships no types
    """Asks the rungs at each epoch whether a trial continues."""

    def __init__(self, rungs: Rungs | None, run: HeldRun) -> None:
        super().__init__()
        self._rungs = rungs
        self._run = run

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first waiting trial of those that have not ended; Tune's own version goes through all trials."""
        waiting = (t for t in tune_controller.get_live_trials() if t.status == Trial.PENDING)
        return min(waiting, key=lambda trial: int(trial.experiment_tag.split("_")[0]), default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A collapsed trial ends by itself, and is not compared with others; a fault has no epoch."""
        continue_: str = TrialScheduler.CONTINUE
        if self._rungs is None or result.get("collapsed", True):
            return continue_
        trial_id = trial.config["trial_id"]
        score = self._run.config.metric.score(result["best_value"])
        decision = self._rungs.decide(trial_id, result["epoch"], score)
        if decision is None or self._run.trial(trial_id).asked.origin != "search":
            return continue_
        verdict = take(decision, self._rungs, self._run)
        stop: str = TrialScheduler.STOP
        return stop if verdict == "stop" else continue_

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial that diverged or collapsed leaves the rungs."""
        if self._rungs is not None and result.get("status") in BROKEN:
            self._rungs.forget(trial.config["trial_id"])
