"""study.py and proposals.py as a Ray Tune searcher: first the unfinished trials on record, then new ones."""

import logging
from collections import deque
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from sweep.on_ray.workers import Unwritten
from sweep.request.open_run import HeldRun
from sweep.search.proposals import Proposals
from sweep.search.study import Recorded, recorded
from sweep.session.interruption import Interruption
from trainable.records.rows import Status
from trainable.records.trial_folder import TrialRecord

LOG = logging.getLogger(__name__)


class RecordSearcher(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Gives Tune a trial whenever a slot is free, and creates its record before Tune hears of it.

    At most `concurrent` trials are live. A trial that waits for its retry is live, so no new suggestion takes its
    place. A trial whose weights are being written is not, but the search is not over until they are written.
    """

    def __init__(
        self, run: HeldRun, concurrent: int, unwritten: Unwritten, interruption: Interruption
    ) -> None:
        super().__init__()
        self._config = config = run.config
        self._run = run
        self.concurrent = concurrent
        """How many trials may be live; it changes as nodes come and go."""
        self._unwritten = unwritten
        self._interruption = interruption
        self._proposals = Proposals(config)
        found = [recorded(record, config.metric) for record in run.folder.trials()]
        self._trials = {trial.trial_id: trial for trial in found if trial.origin == "search"}
        self._next_number = max((trial.number for trial in self._trials.values()), default=-1) + 1
        self._waiting = deque(trial for trial in found if not trial.is_over(config.epochs))
        self._live: dict[str, str] = {}
        self._exhausted = False

    @property
    def is_complete(self) -> bool:
        """Has everything that was asked for been tried, and has it ended?"""
        is_over = self._exhausted and not self._live and not self._waiting
        return is_over and self._unwritten.is_all_on_record

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """`trial_id` is Tune's; ours is the name of the trial's folder."""
        for settled in self._unwritten.look():
            self.again(settled)
        if len(self._live) >= self.concurrent:
            return None
        own = self._waiting.popleft().trial_id if self._waiting else None
        if own is None and not self._exhausted:
            own = self._new_trial()
            self._exhausted = own is None
        if own is None:  # while others run or write, one of them may need a retry
            # Tune reacts to nothing while it waits for a searcher, so a requested end is checked here
            writes = len(self._unwritten) and not self._interruption.how
            return None if self._live or writes else Searcher.FINISHED
        self._live[trial_id] = own
        return {"trial_id": own}

    def _new_trial(self) -> str | None:
        proposed = self._proposals.numbered(self._next_number, self._trials)
        if proposed is None:
            asked = self._config.asked_for(self._trials)
            if len(self._trials) < asked:
                LOG.warning(
                    "the space is exhausted: it has %d distinct settings, but %d were asked for",
                    len(self._trials),
                    asked,
                )
            return None
        number, settings = proposed
        record = TrialRecord.create(self._run.folder, settings, number, self._run.session)
        self._trials[record.trial_id] = Recorded(settings, number, Status.PENDING)
        self._next_number = number + 1
        return record.trial_id

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what counts is on record when the trial ends."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Read the record of a trial that ended, was pruned, or failed for good."""
        own = self._live.pop(trial_id)
        found = recorded(self._run.trial(own), self._config.metric)
        if outcome := self._unwritten.outcome(own):
            found = replace(found, status=outcome.status)
        if error:
            found = replace(found, status=Status.FAILED)
        if own in self._trials:  # the search learns nothing from replicates and audits
            self._trials[own] = found

    def again(self, own: str) -> None:
        """Read a record once more, and suggest its trial again if that has not ended."""
        found = recorded(self._run.trial(own), self._config.metric)
        if own in self._trials:
            self._trials[own] = found
        if not found.is_over(self._config.epochs):
            self._waiting.append(found)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a searcher is rebuilt from records, never restored")
