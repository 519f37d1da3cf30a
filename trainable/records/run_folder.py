"""A run folder and the trials in it."""

from dataclasses import dataclass

from trainable.records.files import current_disk
from trainable.records.paths import RunPaths
from trainable.records.trial_folder import TrialRecord


@dataclass(frozen=True)
class RunFolder(RunPaths):
    """The records of a run: its own files, and those of every trial."""

    def trial(self, trial_id: str, session: int | None = None) -> "TrialRecord":
        return TrialRecord(self.path / "trials" / trial_id, session)

    def trials(self) -> list["TrialRecord"]:
        """Every trial on record, in the order of suggestion."""
        folder = self.path / "trials"
        found = [TrialRecord(folder / name) for name in current_disk().names(folder)]
        there = [record for record in found if record.is_there()]
        return sorted(there, key=lambda record: (record.asked.number, record.asked.trial_id))
