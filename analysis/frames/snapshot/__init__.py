"""A single read of a run's records, which a command uses for everything it reports.

Only here does the analysis read statuses, epochs, decisions, ledger, manifest and configuration, each once, so that
two sentences about a run under way never refer to two moments. A record is written after what it refers to
(docs/reference/run-folder.md), so it is read before it: no status, decision or opening refers to an epoch that was not
read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np

from analysis.frames.ledger import Opening, parse_ledger
from analysis.frames.snapshot.collector import paused_collector
from analysis.frames.snapshot.epochs import Epochs, TrialEpochs, parse_epochs
from analysis.statistics import Labels
from sweep.request.open_run import Run, open_run
from sweep.search.asha import Decision
from sweep.search.ranking import Standing, standing
from trainable.data import read_split
from trainable.metric import Metric
from trainable.records.files import parse_json_lines, read_bytes, whole_lines
from trainable.records.paths import readable
from trainable.records.rows import Asked, Row, StatusRecord
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

RunPath = str | PathLike[str]


@dataclass(frozen=True)
class ReadTrial:
    """The records of one trial."""

    record: TrialRecord
    """Used for its validation predictions, which are read on demand."""
    asked: Asked
    state: StatusRecord
    epochs: TrialEpochs

    @property
    def trial_id(self) -> str:
        return self.asked.trial_id

    def status(self) -> StatusRecord:
        return self.state

    def rows(self) -> tuple[Row, ...]:
        return self.epochs.rows

    def best(self, metric: Metric) -> Row | None:
        """The best epoch, or None if no epoch has ended."""
        return self.epochs.best(metric)


@dataclass(frozen=True)
class Snapshot(Run):
    """A run and its records as they were when they were read."""

    trials: tuple[ReadTrial, ...]
    """In the order of suggestion."""
    epochs: Epochs
    """The epochs of all trials, in that order."""
    test: bytes | None
    """test.json, if there is one."""
    rungs: bytes
    """The complete lines of rungs.jsonl."""

    @staticmethod
    def of(run: "Source") -> "Snapshot":
        """The run in a folder, read now; a snapshot is returned unchanged.

        Raises:
            RequestError: there is no run folder, or a record is damaged.
        """
        return run if isinstance(run, Snapshot) else _read(run)

    @cached_property
    def openings(self) -> tuple[Opening, ...]:
        """The openings of the test set, in order.

        Raises:
            RequestError: test.json is damaged, or has a newer format.
        """
        return () if self.test is None else parse_ledger(self.test, self.folder)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """ASHA's decisions on the trials that were read, in the order in which they were taken.

        Raises:
            RequestError: rungs.jsonl is damaged.
        """
        path = self.folder.rungs
        with readable(path, "restore the original"):
            found = [Decision.from_json(facts) for facts in parse_json_lines(self.rungs, path)]
        return tuple(one for one in found if one.trial_id in self.by_id)

    @cached_property
    def labels(self) -> Labels:
        """The labels of the validation images, in the order of the split.

        Raises:
            RequestError: split.parquet is missing or damaged.
        """
        found = read_split(self.folder.split, ("validation",))["label"]
        return found.to_numpy(np.int64)

    @cached_property
    def by_id(self) -> Mapping[str, ReadTrial]:
        return {trial.trial_id: trial for trial in self.trials}

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """The standing of each trial that has finished an epoch, in the order of suggestion."""
        found = (standing(trial, self.config.metric) for trial in self.trials)
        return tuple(each for each in found if each is not None)


Source = RunPath | Snapshot
"""A run: its folder, or what was read from it."""


@paused_collector()
def _read(run: RunPath) -> Snapshot:
    opened = open_run(run)
    folder = opened.folder
    test = _test_json(folder)
    records = folder.trials()
    states = [record.status() for record in records]
    rungs = whole_lines(folder.rungs)
    epochs = parse_epochs(records, [record.read_rows() for record in records])
    trials = tuple(
        ReadTrial(record, record.asked, state, epochs.of(place))
        for place, (record, state) in enumerate(zip(records, states, strict=True))
    )
    return Snapshot(folder, opened.manifest, opened.config, trials, epochs, test, rungs)


def _test_json(folder: RunFolder) -> bytes | None:
    try:
        return read_bytes(folder.test)
    except FileNotFoundError:
        return None
