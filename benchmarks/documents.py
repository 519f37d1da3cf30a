"""Makes the speed tables and the timeline of the documents from the raw figures in benchmarks/results.

Rewrites what is between `<!-- …: made by … -->` and `<!-- end -->` in docs/reference/measurements.md and
docs/explanation/sharing.md, which a test compares with the figures, and docs/pictures/timeline.svg.

    python benchmarks/documents.py
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from trainable.show.colours import BLUE, VERMILION

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ORDER = ("mixed12", "mixed8", "mixed4", "mixed24", "head24")
USUAL = {
    "image_size": 224,
    "width": 1.0,
    "weights": "none",
    "head": "mlp",
    "batch_size": 32,
    "optimizer": "adam",
    "concurrent": 2,
    "threads": 1,
    "gpus_per_trial": 0,
    "loader_workers": 0,
}
CASE_COLUMNS = (
    "case",
    "images × epochs",
    "ours",
    "plain script",
    "ratio",
    "while training",
    "ceiling",
    "ours over floor",
    "slots busy",
    "peak memory, ours / plain",
)
DASH = "–"
SIDES = {"ours": "ours", "peer": "plain script"}
COLOURS = {"head": BLUE, "block5": VERMILION}
TOLD = ("strategy", "lr", "augmentation")

Found = Mapping[str, Any]
"""What `sharing.measure` returns."""


def cases() -> list[Found]:
    """The measured cases in the documents' order; within a case, the one with fewer images and epochs first."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    compared = [result for result in found if "ours_seconds" in result]
    return sorted(compared, key=lambda result: (_order(result), _work(result)))


def _order(result: Found) -> int:
    return ORDER.index(result["arguments"]["case"])


def _work(result: Found) -> int:
    return int(result["arguments"]["images"] * result["arguments"]["epochs"])


def settings_in_words(result: Found) -> str:
    """12 trials: head and block5, 2 lr, 3 augmentations; batches of 32."""
    settings, arguments = result["settings"], result["arguments"]
    strategies, rates, augmentations = (
        list(dict.fromkeys(setting[name] for setting in settings))
        for name in ("strategy", "lr", "augmentation")
    )
    strategies.sort(key=("head", "block5").index)
    views = f"{len(augmentations)} augmentations"
    if len(augmentations) < 3:
        views = " and ".join(sorted(augmentations, reverse=True))
    words = f"{len(settings)} trials: {' and '.join(strategies)}, {len(rates)} lr, {views}"
    if arguments["head"] != "mlp":
        words += f"; head of {arguments['head']}"
    if arguments["gpus_per_trial"]:
        words += f"; {arguments['concurrent']} at a time on GPUs"
    return f"{words}; batches of {arguments['batch_size']}"


def size_in_words(result: Found) -> str:
    """120 + 12 × 4."""
    arguments = result["arguments"]
    return f"{arguments['images']:,} + {arguments['validation']:,} × {arguments['epochs']}"


def case_in_words(result: Found) -> str:
    """12 trials: head and block5, 2 lr, 3 augmentations; batches of 32; 120 + 12 images, 4 epochs."""
    arguments = result["arguments"]
    images = f"{arguments['images']:,} + {arguments['validation']:,} images"
    return f"{settings_in_words(result)}; {images}, {arguments['epochs']} epochs"


def command(result: Found) -> str:
    """The command that measures it again."""
    arguments = result["arguments"]
    names = ["images", "validation", "epochs"]
    names += [name for name, usual in USUAL.items() if arguments[name] != usual]
    names += ["repeats"] * (arguments["repeats"] != 3)
    names += ["peer_repeats"] * (arguments["peer_repeats"] != arguments["repeats"])
    options = " ".join(f"--{name.replace('_', '-')} {arguments[name]}" for name in names)
    return f"python benchmarks/sharing.py {arguments['case']} {options}"


def seconds(spread: Mapping[str, float], n: int) -> str:
    return f"{spread['median']:,.0f} s (n = {n})"


def span(result: Found, text: str) -> str:
    """`text`, the spread over runs, if there were several."""
    return text if result["arguments"]["repeats"] > 1 else ""


def gibibytes(amount: float) -> str:
    return f"{amount / 2**30:.1f}"


def case_row(result: Found) -> Sequence[str]:
    """One row under `CASE_COLUMNS`, with dashes if the plain script did not run."""
    bound = result["floor"]
    peer, memory = [DASH] * 3, DASH
    if "ratio" in result:
        ratio = result["ratio"]
        peer = [
            seconds(result["peer_seconds"], result["peer_runs"]),
            f"{ratio['median']:.2f}"
            + span(result, f" ({ratio['min']:.2f}{DASH}{ratio['max']:.2f})"),
            f"{result['training_ratio']['median']:.2f}",
        ]
        memory = gibibytes(result["peer_peak_rss_bytes"])
    return (
        settings_in_words(result),
        size_in_words(result),
        seconds(result["ours_seconds"], result["arguments"]["repeats"]),
        *peer,
        f"{bound['ceiling_by_time']:.2f} by time, {bound['ceiling_by_multiply_adds']:.2f} by work",
        f"{result['over_floor']['median']:.2f}",
        f"{result['busy']['median']:.0%}".replace("%", " %"),
        f"{gibibytes(result['peak_rss_bytes'])} / {memory} GiB",
    )


def fixed_row(result: Found) -> Sequence[str]:
    """Where the time outside training went."""
    fixed = result["fixed_seconds"]
    share = sum(fixed.values()) / result["ours_seconds"]["median"]
    return (
        f"{result['arguments']['case']}, {size_in_words(result)}",
        *(f"{value:.1f}" for value in fixed.values()),
        f"{share:.0%}".replace("%", " %"),
    )


def speed_row(result: Found) -> Sequence[str]:
    """A row for the README: what it means, and the command."""
    arguments, ratio = result["arguments"], result["ratio"]
    most = result["floor"]["ceiling_by_time"]
    return (
        case_in_words(result),
        f"**{ratio['median']:.1f} times as fast** ("
        + span(result, f"{ratio['min']:.1f} to {ratio['max']:.1f}, ")
        + f"n = {arguments['repeats']} and {result['peer_runs']}), "
        f"{result['training_ratio']['median']:.1f} while training; {most:.1f} is the most",
        f"`{command(result)}`",
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def case_table(found: Sequence[Found]) -> str:
    return table(CASE_COLUMNS, map(case_row, found))


def fixed_table(found: Sequence[Found]) -> str:
    columns = ("seconds", *found[0]["fixed_seconds"], "of the whole")
    return table(columns, map(fixed_row, found))


def speed_table(found: Sequence[Found]) -> str:
    compared = (result for result in found if "ratio" in result)
    return table(("what", "figure", "command"), map(speed_row, compared))


# ---------------------------------------------------------------- the timeline


def timeline(result: Found) -> go.Figure:
    """The last run of each side: in each slot a bar per epoch, over a pale one for the whole trial."""
    runs = {run["side"]: run for run in result["runs"]}
    figure = go.Figure()
    shown: set[str] = set()
    for side, run in runs.items():
        slots = list(dict.fromkeys(trial["slot"] for trial in run["trials"]))
        for trial in run["trials"]:
            row = f"{SIDES[side]}, slot {slots.index(trial['slot']) + 1}"
            strategy = trial["setting"]["strategy"]
            told = ", ".join(str(trial["setting"][name]) for name in TOLD)
            begin = trial["started"] - run["started"]
            epochs = trial["epoch_seconds"]
            starts = accumulate(epochs[:-1], initial=begin + trial["building_seconds"])
            figure.add_bar(
                y=[row],
                x=[trial["ended"] - trial["started"]],
                base=[begin],
                width=0.8,
                marker={"color": "#dddddd"},
                hovertext=f"{told}: the whole trial",
                showlegend=False,
            )
            figure.add_bar(
                y=[row] * len(epochs),
                x=epochs,
                base=list(starts),
                width=0.6,
                marker={"color": COLOURS[strategy], "line": {"width": 0.5, "color": "white"}},
                name=f"an epoch of {strategy}",
                legendgroup=strategy,
                showlegend=strategy not in shown,
                hovertext=[f"{told}: epoch {at}, {s:.2f} s" for at, s in enumerate(epochs, 1)],
            )
            shown.add(strategy)
    figure.update_traces(orientation="h", hoverinfo="text")
    figure.update_layout(
        title={"text": case_in_words(result), "font_size": 15},
        template="plotly_white",
        barmode="overlay",
        xaxis={"title": "seconds since the program's start", "minallowed": 0},
        yaxis={"autorange": "reversed"},
        height=160 + 50 * len({bar.y[0] for bar in figure.data}),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return figure


# ---------------------------------------------------------------- the documents

TABLES: Mapping[Path, Mapping[str, Callable[[Sequence[Found]], str]]] = {
    HERE.parent / "docs" / "reference" / "measurements.md": {"speed": speed_table},
    HERE.parent / "docs" / "explanation" / "sharing.md": {
        "cases": case_table,
        "fixed": fixed_table,
    },
}


def renewed(document: Path) -> str:
    """The document with its tables regenerated."""
    text = document.read_text()
    for name, made in TABLES[document].items():
        before, rest = text.split(f"<!-- {name}: made by benchmarks/documents.py -->\n")
        _, after = rest.split("<!-- end -->", 1)
        text = f"{before}<!-- {name}: made by benchmarks/documents.py -->\n{made(cases())}\n<!-- end -->{after}"
    return text


def main() -> None:
    from analysis.pages.drawing import draw_pictures

    for document in TABLES:
        document.write_text(renewed(document))
    shown = next(result for result in cases() if result["arguments"]["case"] == "mixed8")
    [picture] = draw_pictures([timeline(shown)], "svg")
    (HERE.parent / "docs" / "pictures" / "timeline.svg").write_bytes(picture)


if __name__ == "__main__":
    main()
