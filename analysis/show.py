"""Prints results, finalists, replicates and the test result for the commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from trainable.show.colours import COLOURS
from trainable.show.terminal import PlainConsole

if TYPE_CHECKING:
    from analysis.final_test import Tested
    from analysis.findings.finalists import Finalists
    from analysis.findings.replicates import Replication
    from analysis.frames.snapshot import Snapshot

console = PlainConsole()
if not console.is_terminal:
    console.width = 400  # no terminal, no limit: rows stay whole for grep

ROOMY: Final = 110  # terminal columns from which on every column is shown; by eye


def line(text: str, style: str | None = None) -> None:
    """Print a line without wrapping it."""
    console.print(text, style=style, soft_wrap=True)


def read_results(run: "Snapshot") -> dict[str, Any]:
    """Everything that `results` shows, as plain JSON.

    Raises:
        RequestError: a damaged record.
    """
    from analysis.frames import results as frames
    from analysis.frames.select import select, why_unfinished

    trials, selection = frames.trials(run), select(run)
    lacks = why_unfinished(run)
    return {
        "run": str(run.folder.path),
        "name": run.config.name,
        "metric": run.config.metric.value,
        "finished": lacks is None,
        "winner": selection.winner and selection.winner.trial_id,
        "ground": selection.ground_said(),
        "ranking": [each.trial_id for each in selection.ranked],
        "remarks": selection.remarks() + ([f"the sweep is not finished: {lacks}"] if lacks else []),
        "frozen_work": frames.work(run),
        "times_test_opened": len(run.openings),
        "differing_settings": frames.varied(trials),
        "trials": frames.to_records(trials),
        "epochs": frames.to_records(frames.epochs(run)),
    }


def show_results(facts: dict[str, Any]) -> None:
    """Print a table of the trials, best first, and the remarks that a reader needs with it."""
    from analysis.wording import NO_VALUE, metric_value, number, setting, times
    from trainable.metric import Metric
    from trainable.show.wording import duration, frozen_work_said

    metric = Metric(facts["metric"])
    place = {trial_id: rank for rank, trial_id in enumerate(facts["ranking"])}
    rows = sorted(facts["trials"], key=lambda row: place.get(row["trial_id"], len(place)))
    table = Table(box=None, padding=(0, 2, 0, 0))
    roomy = console.width >= ROOMY
    table.add_column("trial", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for column in (metric.value, "best epoch", *(("loss", "time") if roomy else ())):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("setting")
    for row in rows:
        table.add_row(
            row["trial_id"],
            Text(row["status"], COLOURS[row["status"]].terminal),
            metric_value(metric, row[metric.value]),
            f"{row['best_epoch'] or NO_VALUE} of {row['epochs']}",
            *((number(row["val_loss"]), duration(row["seconds"])) if roomy else ()),
            setting(row, facts["differing_settings"]),
            style="bold" if row["trial_id"] == facts["winner"] else None,
        )
    console.print(table)
    if facts["winner"]:
        line(f"winner by {metric.value}: {facts['winner']}", "bold")
        line(facts["ground"])
    for row in rows:
        if row["status"] == "failed":
            line(f"{row['trial_id']} failed: {row['reason']}", "red")
    for remark in facts["remarks"]:
        line(remark, "yellow")
    if said := frozen_work_said(facts["frozen_work"]):
        line(said, "bright_black")
    line(f"test set opened: {times(facts['times_test_opened'])}")
    for path in facts["files"]:
        line(path, "bright_black")


def show_finalists(finalists: "Finalists") -> None:
    """Print the finalists with their intervals, and what follows from the comparisons."""
    from analysis.wording import percent

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("trial", no_wrap=True)
    for column in (
        "validation accuracy",
        "95 % interval",
        "only it right",
        "only winner right",
        "p",
        "p (Holm)",
    ):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("setting")
    for each in finalists.each:
        versus = each.versus
        table.add_row(
            each.trial_id,
            percent(each.accuracy),
            finalists.interval_said(each),
            *(
                (
                    f"{versus.only_second:,}",
                    f"{versus.only_first:,}",
                    f"{versus.p:.3g}",
                    f"{each.p_holm:.3g}",
                )
                if versus
                else ("", "", "", "")
            ),
            each.setting,
            style=None if versus else "bold",
        )
    console.print(table)
    for sentence in finalists.said():
        line(sentence)


def show_replication(replication: "Replication") -> None:
    """Print the means of replicated settings, and what follows from them."""
    if not replication.each:
        line(
            "no setting was replicated, so it is not known which setting is better; `sweep replicate RUN` trains the "
            "best ones again with other seeds"
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("setting")
    for column in (
        f"mean {replication.metric.value}",
        "95 % interval",
        "standard deviation",
        "learned",
        "did not learn",
    ):
        table.add_column(column, no_wrap=True, justify="right")
    for each in replication.each:
        mean = each.mean
        table.add_row(
            each.setting,
            *(
                (
                    replication.value(mean.mean),
                    f"{replication.value(mean.interval.low)} to {replication.value(mean.interval.high)}",
                    replication.value(mean.deviation),
                )
                if mean
                else ("", "", "")
            ),
            str(len(each.trial_ids)),
            str(len(each.not_learned)),
        )
    console.print(table)
    for sentence in replication.said():
        line(sentence)


def show_tested(run: Path, tested: "Tested") -> None:
    """Print the test result, how often the test set was opened, and the remarks that belong with it."""
    from analysis.frames.ledger import WHY_ONE, NextStep, how_often, reasons
    from analysis.frames.select import select as select_winner
    from analysis.frames.snapshot import Snapshot
    from analysis.judgement import judge
    from analysis.wording import number, percent

    read = Snapshot.of(run)
    folder = read.folder
    opening, result = tested.opening, tested.opening.result
    assert result is not None
    winner, interval, counts = opening.winner, result.accuracy_interval, result.confusion
    negative, positive = read.manifest.classes
    if tested.step is NextStep.SHOW:
        line(f"stored on {opening.completed}; no test image was read this time", "bright_black")
    line(
        f"winner         {winner.trial_id}, epoch {winner.epoch}, {winner.metric.value} {winner.value:.4f}"
    )
    line(
        f"test accuracy  {percent(result.accuracy)}, 95 % Wilson interval "
        f"{percent(interval.low)} to {percent(interval.high)}, "
        f"{counts.correct:,} of {counts.images:,} images",
        "bold",
    )
    line(
        f"loss {number(result.loss)}, balanced accuracy {percent(result.balanced_accuracy)}, "
        f"precision {percent(result.precision)}, recall {percent(result.recall)}, "
        f"F1 {percent(result.f1)}, ROC AUC {number(result.auc)}"
    )
    table = Table("", f"predicted {negative}", f"predicted {positive}", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(f"actual {negative}", f"{counts.true_negative:,}", f"{counts.false_positive:,}")
    table.add_row(f"actual {positive}", f"{counts.false_negative:,}", f"{counts.true_positive:,}")
    console.print(table)
    selection = select_winner(read)
    if selection.winner is not None and selection.winner.trial_id == winner.trial_id:
        line(f"it is the winner by validation, {selection.ground_said()}")
    line(WHY_ONE)
    for sentence in judge(read).briefly():
        line(sentence)
    line(how_often(read.openings))
    for text in (*reasons(read.openings), *tested.remarks):
        line(text, "yellow")
    if tested.alarm:
        line(tested.alarm, "bold red")
    for path in (folder.test, folder.test_predictions, folder.test_mistakes):
        line(str(path), "bright_black")
