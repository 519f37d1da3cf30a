"""Opens and closes a session of a run, and finishes one whose driver died before it could."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.request.open_run import HeldRun
from sweep.search.ranking import standing, to_keep
from trainable.records.files import now, write_json
from trainable.records.manifest import Granted, Session, SessionEnd, read_manifest, write_manifest
from trainable.records.paths import StaleSession
from trainable.records.run_folder import RunFolder


def open_session(
    run: RunFolder,
    number: int,
    devices: Sequence[Mapping[str, Any]] = (),
    granted: Granted | None = None,
) -> None:
    """Record that the session of a held run begins now, on these kinds of devices. `number` is the hold's.

    Raises:
        StaleSession: another driver has taken the run over.
    """
    newest = run.newest_drawn()
    if newest > number:
        raise StaleSession(f"session {newest} has taken over from session {number}")
    write_json(run.session, {"number": number})
    begun = Session(
        number=number,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now(),
        devices=tuple(dict(facts) for facts in devices),
        granted=granted,
    )
    write_manifest(run, read_manifest(run).with_session(begun))


def close_session(run: RunFolder, number: int, how: SessionEnd) -> None:
    """Record how a session ended; a session that was taken over writes nothing any more."""
    try:
        run.refuse_stale(number)
    except StaleSession:
        return
    write_manifest(run, read_manifest(run).with_session_ended(number, how, now()))


def finish(run: HeldRun) -> None:
    """In a run with nothing left to do: delete weights that are not kept, and record a finished session.

    The last driver may have died or been stopped just before it did so; `analysis test` needs that record.
    """
    folder, config = run.folder, run.config
    ended = [found for record in folder.trials() if (found := standing(record, config.metric))]
    for trial_id in {each.trial_id for each in ended} - to_keep(ended, config.keep.best):
        run.trial(trial_id).forget_weights()
    sessions = read_manifest(folder).sessions
    if not sessions or sessions[-1].how is not SessionEnd.FINISHED:
        open_session(folder, run.session)
        close_session(folder, run.session, SessionEnd.FINISHED)
