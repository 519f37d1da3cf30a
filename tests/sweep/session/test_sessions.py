"""Sessions: each closes its own entry, and one that was taken over writes nothing."""

import pytest

from analysis.frames.select import why_unfinished
from sweep.request.config import SweepConfig
from sweep.request.open_run import HeldRun
from sweep.request.prepare import prepare
from sweep.search.proposals import nothing_left
from sweep.session.hold import only_driver
from sweep.session.sessions import close_session, finish, open_session
from tests.support.made_runs import create_run
from tests.sweep.session.test_audit import row
from trainable.config import TrialConfig
from trainable.records.manifest import SessionEnd, read_manifest
from trainable.records.paths import StaleSession
from trainable.records.rows import Status, StatusRecord
from trainable.records.trial_folder import TrialRecord

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.mark.parametrize("how", [None, SessionEnd.SIGINT])
def test_a_run_whose_driver_ended_just_after_its_last_trial_is_finished_by_the_next_command(
    config: SweepConfig, how: SessionEnd | None
) -> None:
    """The test set was not opened for it else: its last session had not ended, and none came after it."""
    run = create_run(config, prepare(config), [])
    with only_driver(run) as session:
        open_session(run, session)
    accuracies = {"head": 0.7, "block5": 0.8}
    for number, (strategy, accuracy) in enumerate(accuracies.items()):
        settings = config.space.settings({"strategy": strategy})
        record = TrialRecord.create(run, settings, number, None)
        for epoch in range(1, config.epochs + 1):
            record.append(row(epoch, accuracy))
        record.last.write_bytes(b"state")
        record.end(Status.FINISHED)
    if how:
        close_session(run, session, how)
    assert why_unfinished(run.path) is not None
    kept = config.model_copy(update={"keep": config.keep.model_copy(update={"best": 1})})
    assert nothing_left(run, config)
    for _ in range(2):
        with only_driver(run) as session:
            finish(HeldRun(run, kept, session))
    assert why_unfinished(run.path) is None
    assert [each.how for each in read_manifest(run).sessions] == [how, SessionEnd.FINISHED]
    assert [record.last.exists() for record in run.trials()] == [False, True]


def test_a_session_that_was_taken_over_does_not_write_its_end(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as first:
        open_session(run, first)
    with only_driver(run) as second:
        with pytest.raises(StaleSession):
            open_session(run, first)
        open_session(run, second)
    close_session(run, first, SessionEnd.SIGTERM)
    assert [session.how for session in read_manifest(run).sessions] == [None, None]


def test_each_session_closes_its_own_entry_also_where_a_number_opened_none(
    config: SweepConfig,
) -> None:
    """As of a command that held the run and found nothing to do."""
    run = create_run(config, prepare(config), [])
    ends = {1: SessionEnd.SIGTERM, 3: SessionEnd.FAULT}
    for opens in (True, False, True):
        with only_driver(run) as number:
            if opens:
                open_session(run, number)
                close_session(run, number, ends[number])
    assert {each.number: each.how for each in read_manifest(run).sessions} == ends


def test_a_trial_of_an_older_session_stops_before_it_writes(config: SweepConfig) -> None:
    run = create_run(config, prepare(config), [])
    with only_driver(run) as first:
        open_session(run, first)
    record = TrialRecord.create(run, TrialConfig(strategy="head"), 0, first)
    with only_driver(run) as second, pytest.raises(StaleSession):
        record.write_status(StatusRecord(Status.FINISHED))
    assert (first, second) == (1, 2)
    assert run.trial(record.trial_id).status().status is Status.PENDING
