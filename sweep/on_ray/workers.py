"""Workers that write a trial's weights and state while they train the next one, and workers that are silent."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from trainable.records.rows import Outcome, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import NOTE_SECONDS, TrialRecord
from trainable.show.wording import duration


@dataclass
class Writer:
    """The worker that writes a trial's weights and state, and whether it is known to be alive."""

    worker: Any
    outcome: Outcome
    """How the training ended; this is recorded once everything is written."""
    answer: Any = None

    def has_died(self) -> bool:
        """Ask without waiting: a worker answers between two epochs, and a dead one raises an error."""
        self.answer = self.answer or self.worker.__ray_ready__.remote()
        answered, _ = ray.wait([self.answer], timeout=0)
        if answered:
            answer, self.answer = self.answer, None
            try:
                ray.get(answer)
            except ActorDiedError:
                return True
            except RayError:  # it can't be reached now, but may be alive: ask again
                return False
        return False


class Unwritten:
    """Trials whose training is over, but whose record does not say so yet: their workers still write weights and state.

    Each is checked again and again; a trial whose worker died meanwhile must be retried.
    """

    def __init__(
        self, run: RunFolder, session: int, retries: int, hung_after: float | None
    ) -> None:
        self._run = run
        self._session = session
        self._retries = retries
        self._silence = Silence(run, hung_after)
        self._look_again = 0.0
        self._writers: dict[str, Writer] = {}
        self._died: dict[str, int] = {}
        """By trial: the attempt in which its worker died while writing."""

    def __len__(self) -> int:
        return len(self._writers)

    def add(self, trial_id: str, worker: Any, outcome: Outcome) -> None:
        """Note a trial that Tune was told has ended, unless its record says so already."""
        if not self._run.trial(trial_id).status().status.has_ended:
            self._writers[trial_id] = Writer(worker, outcome)

    def outcome(self, trial_id: str) -> Outcome | None:
        """How a trial's training ended, while that is not on record yet."""
        writer = self._writers.get(trial_id)
        return writer.outcome if writer else None

    @property
    def is_all_on_record(self) -> bool:
        """Have all of them ended on record, including those not checked since?"""
        return all(self._run.trial(own).status().status.has_ended for own in self._writers)

    def writes(self, worker: Any) -> bool:
        """Is this worker writing a trial's weights and state?"""
        return any(writer.worker == worker for writer in self._writers.values())

    def is_counted(self, record: TrialRecord) -> bool:
        """Was the worker's death while writing already counted, with no new attempt since? Tune may not know of that
        death yet, give the trial to the same worker, and count this as another failure."""
        return self._died.get(record.trial_id) == record.status().attempt

    def look(self) -> list[str]:
        """Trials whose records by now say how they ended, or that they must be retried."""
        if self._writers and time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + NOTE_SECONDS
            self._silence.end((own, writer.worker) for own, writer in self._writers.items())
        settled = [own for own, writer in self._writers.items() if self._is_settled(own, writer)]
        for own in settled:
            del self._writers[own]
        return settled

    def _is_settled(self, trial_id: str, writer: Writer) -> bool:
        died = writer.has_died()  # checked first: what it wrote before that is on record by then
        record = self._run.trial(trial_id, self._session)
        status = record.status()
        if status.status.has_ended:
            return True
        if not died and (status.status is Status.RUNNING or not record.has_status):
            return False  # if the folder is gone, so is its status
        if died:
            self._died[trial_id] = status.attempt
        if status.status is Status.RUNNING:
            reason = self._silence.said.get(trial_id, "its worker died while it wrote the weights")
            failures = status.failures + 1
            status = replace(status, status=Status.INTERRUPTED, reason=reason, failures=failures)
            record.write_status(status)
        if status.failures > self._retries:
            give_up(record, status.reason)
        return True


def give_up(record: TrialRecord, reason: str) -> None:
    """Record that a trial failed for good."""
    record.end(Status.FAILED, f"{reason[:300]}; its log: {record.log}")


class Silence:
    """Kills workers that have shown no sign of life for too long; their trials are then retried."""

    def __init__(self, run: RunFolder, limit: float | None) -> None:
        self._run = run
        self._limit = limit
        self._signs: dict[str, tuple[object, float]] = {}
        """By trial: what its files looked like when they last changed, and when that was seen."""
        self.said: dict[str, str] = {}
        """By trial: why its worker was killed, as the reason to record."""

    def end(self, busy: Iterable[tuple[str, Any]]) -> None:
        """Kill the busy workers, each with its trial, that are silent; a hung worker takes no other request."""
        if self._limit is None:
            return
        workers = dict(busy)
        self._signs = {own: sign for own, sign in self._signs.items() if own in workers}
        for trial_id, worker in workers.items():
            record = self._run.trial(trial_id)
            if self._seconds(record) > self._limit:
                self.said[trial_id] = (
                    f"no sign of life for {duration(self._limit)} (guards.hung_after)"
                )
                record.say(f"{self.said[trial_id]}: its worker is ended")
                ray.kill(worker)
                del self._signs[trial_id]

    def _seconds(self, record: TrialRecord) -> float:
        """Seconds since a row, status or note was last written, by this process's own clock."""
        sign = record.last_written()
        before, since = self._signs.get(record.trial_id, (None, 0.0))
        if sign != before:
            since = time.monotonic()
            self._signs[record.trial_id] = sign, since
        return time.monotonic() - since
