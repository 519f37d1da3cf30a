"""python -m analysis: explore, results, select, cost, test, plots, report, predict, export."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from analysis.levels import FINALISTS
from analysis.show import (
    console,
    line,
    read_results,
    show_finalists,
    show_replication,
    show_results,
    show_tested,
)
from trainable.errors import RequestError
from trainable.show.options import HELP, Version
from trainable.show.terminal import expanded, printable, progress, run_command

app = typer.Typer(
    help="Analyse recorded runs: data frames, the winner, its single test, reports.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)

Faces = Annotated[
    bool,
    typer.Option(
        " /--no-faces",
        help="Leave out every image of the data set; the page says so.",
        show_default=False,
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder.", callback=expanded)
]


@app.callback()
def options(version: Version = False) -> None:
    """The options that all commands share."""


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
            metavar="DIR", help="Where to write. Default: explore-NAME.", callback=expanded
        ),
    ] = None,
    faces: Faces = True,
) -> None:
    """Show the data set before training: one HTML page, and its plots as PNG files. No test image is opened."""
    from analysis.pages.explore import write_exploration
    from sweep.request.config import load_config

    loaded = load_config(config, overrides or [])
    with progress(console) as begin:
        folder = out or Path(f"explore-{loaded.name}")
        page = write_exploration(
            loaded, folder, begin, lambda text: line(text, "yellow"), show=line, faces=faces
        )
    line(str(page))


@app.command()
def results(
    run: RunArgument, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
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
    run: RunArgument,
    top: Annotated[
        int, typer.Option(min=2, help="How many of the best trials to compare.")
    ] = FINALISTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
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
            line(sentence)


@app.command()
def cost(
    run: RunArgument, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show what the run cost, what pruning and sharing saved, and what ASHA stopped."""
    from analysis.findings.cost import cost_of

    found = cost_of(run)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    for sentence in found.said():
        line(sentence)
    for warning in found.pruning.warnings():
        console.warn(warning)


@app.command()
def test(
    run: RunArgument,
    reopen: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Open the test set again, and record the reason."),
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Open the test set before the sweep has finished.")
    ] = False,
) -> None:
    """Evaluate the winner (chosen by validation) on the test images, once. Later calls show the stored result."""
    from analysis.final_test import final_test

    with progress(console) as begin:
        tested = final_test(run, reopen, unfinished, lambda text: line(text, "bright_black"), begin)
    show_tested(run, tested)


@app.command()
def plots(
    run: RunArgument,
    kind: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write. Default: RUN/results.", callback=expanded
        ),
    ] = None,
) -> None:
    """Write every plot of the report as a picture. This needs Chrome or Chromium."""
    from analysis.frames.shown import shown_of
    from analysis.frames.snapshot import Snapshot
    from analysis.pages.pictures import write_pictures

    read = Snapshot.of(run)
    for path in write_pictures(read, kind, out):
        line(str(path))
    if said := shown_of(read).said():
        line(said, "yellow")


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
            help="The page of several runs. Default: compare-NAME-NAME.html.",
            callback=expanded,
        ),
    ] = None,
    faces: Faces = True,
) -> None:
    """Write one HTML file that opens offline: one run, or several runs side by side."""
    if len(runs) > 1:
        from analysis.pages.compare import write_comparison

        line(str(write_comparison(runs, out)))
        return
    from analysis.pages.report import write_report

    if out is not None:
        raise RequestError(
            "--out is for the page of several runs, but one run was given; leave it out: the report of one run is "
            "written into its folder"
        )
    line(str(write_report(runs[0], faces)))


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...", help="Image files, folders or zips.", callback=expanded
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A new .csv or .json file. Default: standard output.",
            callback=expanded,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of CSV.")] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Default: as in training. Others change the last bits; 1 is fastest for one image.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads of torch. Default: as in training. Others change the last bits."
        ),
    ] = None,
) -> None:
    """Predict images with the winner: file, probability, class. Test images are refused until `analysis test`."""
    from analysis.winner.predicted import as_text, check_out, write_predictions

    if out is not None:
        check_out(out)
    from analysis.winner.predict import load_winner

    winner = load_winner(run)
    with progress(console) as begin:
        found = winner.predict(images, batch_size, threads, begin)
    if out is not None:
        write_predictions(found, out)
        line(f"{len(found):,} images in {out}")
    else:
        text = as_text(found, ".json" if as_json else ".csv")
        print(printable(text, keep="\n") if console.is_terminal else text, end="")


@app.command()
def export(
    run: RunArgument,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder for TensorBoard's files.", callback=expanded
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A new .safetensors or .onnx file for the winner; its model card is written beside it.",
            callback=expanded,
        ),
    ] = None,
) -> None:
    """Export for other tools: every trial's curves for TensorBoard, or the winner's model."""
    if (tensorboard is None) == (model is None):
        raise RequestError(
            "`analysis export` takes exactly one of --tensorboard DIR and --model FILE"
        )
    if model is not None:
        from analysis.winner.export import export_winner

        for path in export_winner(run, model):
            line(str(path))
    if tensorboard is not None:
        from analysis.frames.export import to_tensorboard

        count = to_tensorboard(run, tensorboard)
        line(f"{count} trials; view them: tensorboard --logdir {shlex.quote(str(tensorboard))}")


def main() -> None:
    """Entry point of the command `analysis`."""
    run_command("analysis", app)


if __name__ == "__main__":
    main()
