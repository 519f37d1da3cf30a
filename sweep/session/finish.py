"""What a driver does when all has ended, for one that did not live to do it."""

from sweep.request.open_run import HeldRun
from sweep.search.ranking import standing, to_keep
from sweep.session.create import close_session, open_session
from trainable.records.manifest import SessionEnd, read_manifest


def finish(run: HeldRun) -> None:
    """In a run in which nothing is left to do: let go of weights, and let the last session be one that finished.

    The last driver may have died before it did so, or have been told to end just then; `analysis test` waits for it.
    """
    folder, config = run.folder, run.config
    ended = [found for record in folder.trials() if (found := standing(record, config.metric))]
    for trial_id in {each.trial_id for each in ended} - to_keep(ended, config.keep.best):
        run.trial(trial_id).forget_weights()
    sessions = read_manifest(folder).sessions
    if not sessions or sessions[-1].how is not SessionEnd.FINISHED:
        open_session(folder, run.session)
        close_session(folder, run.session, SessionEnd.FINISHED)
