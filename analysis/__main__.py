"""python -m analysis: explore, results, select, cost, test, plots, report, export."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from trainable.errors import RequestError
from trainable.show.colours import COLOURS
from trainable.show.terminal import PlainConsole, expanded, progress, run_command

if TYPE_CHECKING:
    from analysis.final_test import Tested
    from analysis.findings.finalists import Finalists
    from analysis.findings.replicates import Replication
    from analysis.frames.snapshot import Snapshot

app = typer.Typer(
    help="What runs left on disk: frames, the winner, one opening of the test set, a report.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = PlainConsole()
if not console.is_terminal:
    console.width = 400  # where nobody's terminal sets a limit, rows stay whole for grep

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", callback=expanded)]
ROOMY = 110  # columns of a terminal that has room for everything; by eye


@app.command()
def explore(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="The sweep's YAML file.", callback=expanded)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides such as data.target=Male."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write; explore-NAME otherwise.", callback=expanded
        ),
    ] = None,
) -> None:
    """Look at the data set before training: one HTML page, and its pictures as PNG. No test image is opened."""
    from analysis.pages.explore import write_exploration
    from sweep.request.config import load_config

    loaded = load_config(config, overrides or [])
    with progress(console) as begin:
        folder = out or Path(f"explore-{loaded.name}")
        page = write_exploration(
            loaded, folder, begin, lambda text: _line(text, "yellow"), show=_line
        )
    _line(str(page))


@app.command()
def results(
    run: Run, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """Write every trial and every epoch as Parquet and CSV, and show the trials, best first."""
    from analysis.frames import results as frames

    read = frames.read(run)
    facts = read_results(read)
    facts["files"] = [str(path) for path in frames.write(read)]
    if as_json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        show_results(facts)


@app.command()
def select(
    run: Run,
    top: Annotated[int, typer.Option(min=2, help="How many of the best to compare.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Compare the winner with the runners-up on the same validation images; the test set stays closed."""
    from analysis.findings.effects import effects_of
    from analysis.findings.finalists import compare_finalists
    from analysis.findings.more_trials import more_trials
    from analysis.findings.replicates import compare_replicates
    from analysis.frames.snapshot import Snapshot

    read = Snapshot.of(run)
    finalists, replication = compare_finalists(read, top), compare_replicates(read)
    effects, more = effects_of(read), more_trials(read)
    if as_json:
        facts = {
            "finalists": finalists.to_json(),
            "replication": replication.to_json(),
            "effects": effects.to_json(),
            "more_trials": more.to_json(),
        }
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        show_finalists(finalists)
        show_replication(replication)
        for sentence in (*effects.said(), *more.said()):
            _line(sentence)


@app.command()
def cost(
    run: Run, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """What the run cost, what pruning and sharing saved, and what ASHA stopped."""
    from analysis.findings.cost import cost_of

    found = cost_of(run)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    for sentence in found.said():
        _line(sentence)
    for warning in found.pruning.warnings():
        console.warn(warning)


@app.command()
def test(
    run: Run,
    reopen: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Open the test set again, and write down why."),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Open it before the sweep has finished.")
    ] = False,
) -> None:
    """Evaluate the winner by validation on the test images, once; later calls show that result again."""
    from analysis.final_test import final_test

    with progress(console) as begin:
        tested = final_test(
            run, reopen, unfinished, lambda text: _line(text, "bright_black"), begin
        )
    show_tested(run, tested)


@app.command()
def plots(
    run: Run,
    kind: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write; RUN/results otherwise.", callback=expanded
        ),
    ] = None,
) -> None:
    """Write every plot of the report as a picture; needs a Chrome or Chromium."""
    from analysis.frames.shown import shown_of
    from analysis.frames.snapshot import Snapshot
    from analysis.pages.pictures import write_pictures

    read = Snapshot.of(run)
    for path in write_pictures(read, kind, out):
        _line(str(path))
    if said := shown_of(read).said():
        _line(said, "yellow")


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="One run folder or several.", callback=expanded),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of several runs; compare-NAME-NAME.html otherwise.",
            callback=expanded,
        ),
    ] = None,
) -> None:
    """Write one HTML file that opens offline: about a run, or several runs beside each other."""
    if len(runs) > 1:
        from analysis.pages.compare import write_comparison

        _line(str(write_comparison(runs, out)))
        return
    from analysis.pages.report import write_report

    if out is not None:
        raise RequestError("--out is for several runs: the report of one lies in its folder")
    _line(str(write_report(runs[0])))


@app.command()
def export(
    run: Run,
    tensorboard: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="A new folder for TensorBoard's files.", callback=expanded
        ),
    ],
) -> None:
    """Write the run for another tool: curves and settings of every trial for TensorBoard."""
    from analysis.frames.export import to_tensorboard

    count = to_tensorboard(run, tensorboard)
    _line(f"{count} trials; tensorboard --logdir {shlex.quote(str(tensorboard))}")


def _line(text: str, style: str | None = None) -> None:
    """A line that is not wrapped."""
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
    """Print a table of the trials, best first, and what a reader must know beside it."""
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
        _line(f"winner by {metric.value}: {facts['winner']}", "bold")
        _line(facts["ground"])
    for row in rows:
        if row["status"] == "failed":
            _line(f"{row['trial_id']} failed: {row['reason']}", "red")
    for remark in facts["remarks"]:
        _line(remark, "yellow")
    if said := frozen_work_said(facts["frozen_work"]):
        _line(said, "bright_black")
    _line(f"test set opened: {times(facts['times_test_opened'])}")
    for path in facts["files"]:
        _line(path, "bright_black")


def show_finalists(finalists: "Finalists") -> None:
    """Print the finalists with their intervals, and what the comparisons say."""
    from analysis.wording import percent

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("trial", "validation accuracy", "95 % interval", "right alone", "wrong alone"):
        table.add_column(column, no_wrap=True, justify="left" if column == "trial" else "right")
    for column in ("p", "p, Holm"):
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
        _line(sentence)


def show_replication(replication: "Replication") -> None:
    """Print the means of replicated settings, and what they say."""
    if not replication.each:
        _line(
            "no setting was replicated, so which setting is better isn't known: train the best again with other seeds "
            "(`sweep replicate RUN`)"
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("setting")
    for column in (
        f"mean {replication.metric.value}",
        "95 % interval",
        "deviation",
        "learned",
        "did not",
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
        _line(sentence)


def show_tested(run: Path, tested: "Tested") -> None:
    """Print the final numbers, how often the test set was opened, and what must be said beside them."""
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
        _line(f"as stored on {opening.completed}; no test image was read", "bright_black")
    _line(
        f"winner         {winner.trial_id}, epoch {winner.epoch}, {winner.metric.value} {winner.value:.4f}"
    )
    _line(
        f"test accuracy  {percent(result.accuracy)}, 95 % Wilson interval "
        f"{percent(interval.low)} to {percent(interval.high)}, "
        f"{counts.correct:,} of {counts.images:,} images",
        "bold",
    )
    _line(
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
        _line(f"the winner by validation, {selection.ground_said()}")
    _line(WHY_ONE)
    for sentence in judge(read).briefly():
        _line(sentence)
    _line(how_often(read.openings))
    for text in (*reasons(read.openings), *tested.remarks):
        _line(text, "yellow")
    if tested.alarm:
        _line(tested.alarm, "bold red")
    for path in (folder.test, folder.test_predictions, folder.test_mistakes):
        _line(str(path), "bright_black")


def main() -> None:
    """The command `analysis`."""
    run_command("analysis", app)


if __name__ == "__main__":
    main()
