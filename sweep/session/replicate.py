"""Trains the best settings again with other seeds: was it the setting, or luck?"""

from collections.abc import Sequence

from sweep.request.open_run import open_held_run
from sweep.search.ranking import rank, standing
from sweep.session.beginning import Change, asked_for
from trainable.errors import RequestError
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord


def replicate(run: RunFolder, top: int, seeds: int, command: Sequence[str]) -> Change:
    """`seeds` replicates of each of the `top` best settings of the search.

    Their seeds follow the setting's own, so that a second request with more seeds adds only the new ones. They are not
    part of the search. The caller must hold the run.

    Raises:
        RequestError: no trial has finished, or all replicates exist.
    """
    opened = open_held_run(run)
    config = opened.config
    records = {record.trial_id: record for record in run.trials()}
    found = (standing(record, config.metric) for record in records.values())
    finished = [s for s in found if s and s.status is Status.FINISHED and s.origin == "search"]
    best: dict[str, TrialRecord] = {}
    for each in rank(finished):
        if len(best) < top:
            best.setdefault(each.setting_id, records[each.trial_id])
    if not best:
        raise RequestError(
            f"replicate needs a trial that has finished, but {run.path} has none; continue it: sweep resume {run.path}"
        )
    wanted = [
        settings
        for record in best.values()
        for offset in range(1, seeds + 1)
        if (
            settings := record.asked.settings.with_seed(record.asked.settings.seed + offset)
        ).trial_id
        not in records
    ]
    if not wanted:
        raise RequestError(
            f"--seeds {seeds} of the best {len(best)} settings must leave something to do, but all of them are on "
            "record; ask for more"
        )
    line = (
        f"{len(wanted)} replicates of the {len(best)} best settings, with {seeds} seeds each: "
        "the split and augmentation draws stay; initialisation, batch order and dropout are drawn anew"
    )
    there = asked_for(opened, config, command)
    return Change(there, (line,), beside=tuple(wanted), origin="replicate")
