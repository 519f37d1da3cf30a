"""ASHA's recorded decisions: read, completed after a driver died before taking them, and acted on."""

from collections.abc import Callable

from sweep.request.config import SweepConfig
from sweep.request.open_run import HeldRun
from sweep.search.asha import Decision, Rungs, Verdict, one_arm
from sweep.search.study import recorded
from trainable.records.files import append_json, now, read_json_lines, settle_file
from trainable.records.paths import readable
from trainable.records.rows import BROKEN, Status
from trainable.records.run_folder import RunFolder


def relearn(config: SweepConfig, run: RunFolder) -> Rungs | None:
    """The rungs as the last session left them; None with ASHA off."""
    if config.asha is None:
        return None
    broken = {record.trial_id for record in run.trials() if record.status().status in BROKEN}
    arm_of = strategies(run) if config.asha.rungs_of == "strategy" else one_arm
    rungs = Rungs(config.asha.rungs(config.epochs), config.asha.reduction_factor, arm_of)
    return rungs.replay(decisions(run), broken)


def strategies(run: RunFolder) -> Callable[[str], str]:
    """Trial → its strategy from config.json, read once; "" while the trial is not on record."""
    known: dict[str, str] = {}

    def strategy_of(trial_id: str) -> str:
        if trial_id not in known:
            record = run.trial(trial_id)
            if not record.is_there():
                return ""
            known[trial_id] = record.asked.settings.strategy
        return known[trial_id]

    return strategy_of


def decisions(run: RunFolder) -> list[Decision]:
    """The decisions on record.

    Raises:
        RequestError: a line is not a decision.
    """
    with readable(run.rungs, "put the old one back; without it, nothing tells what was pruned"):
        return [Decision.from_json(facts) for facts in read_json_lines(run.rungs)]


def settle(run: HeldRun) -> None:
    """Mark trials as pruned that a recorded decision stopped, if the driver died before it could do so.

    The driver may even have died before its last decision was on disk; from here on it is acted on.
    """
    settle_file(run.folder.rungs)
    for decision in decisions(run.folder):
        record = run.trial(decision.trial_id)
        if decision.verdict == "stop" and not record.status().status.has_ended:
            mark_pruned(run, decision)


def catch_up(rungs: Rungs, run: HeldRun) -> None:
    """Take the outstanding decisions on recorded epochs, in the order in which the epochs ended.

    Either the driver died between an epoch and its decision, or the run was given more epochs, and thereby another
    rung among those that trials had finished.
    """
    late = []
    metric = run.config.metric
    for record in run.folder.trials():
        trial = recorded(record, metric)
        if record.asked.origin != "search" or trial.is_over(run.config.epochs):
            continue
        rows = record.rows()
        for epoch, judged in rungs.recorded.items():
            if epoch <= len(rows) and trial.trial_id not in judged:
                moment, value = rows[epoch - 1].ended_at, trial.values[epoch - 1]
                late.append((moment, trial.number, epoch, trial.trial_id, value))
    stopped: set[str] = set()
    for _, _, epoch, trial_id, value in sorted(late):
        if trial_id not in stopped:
            decision = rungs.decide(trial_id, epoch, metric.score(value))
            assert decision is not None
            run.trial(trial_id).settle_rows()
            if take(decision, rungs, run) == "stop":
                stopped.add(trial_id)


def take(decision: Decision, rungs: Rungs, run: HeldRun) -> Verdict:
    """Record a decision, then apply it."""
    run.folder.refuse_stale(run.session)
    append_json(run.folder.rungs, decision.to_json() | {"at": now()})
    rungs.record(decision)
    if decision.verdict == "stop":
        mark_pruned(run, decision)
    return decision.verdict


def mark_pruned(run: HeldRun, decision: Decision) -> None:
    """Write the status of a trial that ASHA stopped; it has no step pending."""
    record, metric, asha = run.trial(decision.trial_id), run.config.metric, run.config.asha
    assert decision.cutoff is not None, "the first trial at a rung is never stopped"
    value, asked = metric.score(decision.score), metric.score(decision.cutoff)
    whose = "its strategy's" if asha and asha.rungs_of == "strategy" else "the"
    record.end(
        Status.PRUNED,
        f"best {metric} {value:.4f} at epoch {decision.rung}, where {whose} rung asked for {asked:.4f}",
    )
