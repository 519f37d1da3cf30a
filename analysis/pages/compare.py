"""Several runs on one page: how they differ, the winner of each, and whether the winners differ significantly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from analysis import plots
from analysis.findings.runs import compare
from analysis.frames import results
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot, Source
from analysis.judgement.predicted import rights
from analysis.levels import ALPHA
from analysis.pages.page import figure_json, render_page
from analysis.statistics import Right, holm, mcnemar
from analysis.wording import counted, percent, points, right_alone, setting
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.files import now, write_atomically
from trainable.records.run_folder import RunFolder

UNTOLD: Final = ("name", "storage")
"""Keys that differ between any two runs."""


@dataclass(frozen=True)
class Comparison:
    """The content of the page."""

    runs: pd.DataFrame
    """As `analysis.findings.runs.compare` returns it, with a unique name for each run."""
    settings: tuple[str, ...]
    """For each winner, the settings in which its run's trials differ, in words; "" without a winner."""
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    """Keys of the configuration that differ, each with its value in each run."""
    said: tuple[str, ...]


def compare_runs(given: Sequence[Source]) -> Comparison:
    """The runs side by side.

    Raises:
        RequestError: one of them is not a run folder, is given twice, or has a damaged record.
    """
    read = [Snapshot.of(run) for run in given]
    paths = [run.folder.path for run in read]
    resolved = [path.resolve() for path in paths]
    for path in paths:
        if resolved.count(path.resolve()) > 1:
            raise RequestError(f"each RUN must be a different one, but {path} was given twice")
    runs = compare(read)
    runs["name"] = pd.array(_names(runs), dtype="string")
    return Comparison(
        runs,
        tuple(map(_winner_setting, read)),
        tuple(differences([run.config.model_dump(mode="json") for run in read])),
        tuple(_said(read, runs)),
    )


def _names(runs: pd.DataFrame) -> list[str]:
    """The sweeps' names, with the folder added if two have the same name."""
    names = runs["name"].tolist()
    return [
        name if names.count(name) == 1 else f"{name} ({run})"
        for name, run in zip(names, runs["run"], strict=True)
    ]


def _winner_setting(run: Snapshot) -> str:
    trials = results.trials(run)
    winner = select(run).winner
    if winner is None:
        return ""
    (row,) = results.to_records(trials[trials["trial_id"] == winner.trial_id])
    return setting(row, results.varied(trials))


def differences(asked: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Dotted keys whose values are not the same in all runs, with the value in each run; "–" where there is none."""
    flat = [dict(_flat(facts)) for facts in asked]
    for key in dict.fromkeys(key for facts in flat for key in facts):
        values = tuple(facts.get(key, "–") for facts in flat)
        if len(set(values)) > 1 and key not in UNTOLD:
            yield key, values


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{above}{key}", text


def _said(read: Sequence[Snapshot], runs: pd.DataFrame) -> Iterator[str]:
    """What follows from the winners' validation predictions, if they are for the same images."""
    for column, noun in (("target", "attributes"), ("metric", "metrics")):
        if runs[column].nunique() > 1:
            found = ", ".join(dict.fromkeys(runs[column]))
            yield f"the runs have different {noun} ({found}): their values can't be compared"
    won = [
        (row["name"], run, row["winner"])
        for (_, row), run in zip(runs.iterrows(), read, strict=True)
    ]
    won = [(name, run, winner) for name, run, winner in won if not pd.isna(winner)]
    if len(won) < 2:
        yield "fewer than two of the runs have a winner"
        return
    frames = {}
    for name, run, winner in won:
        try:
            frames[name] = results.predictions(run, [winner])[["file", "label", "logit"]]
        except RequestError as error:
            yield f"{name} is not compared image by image: {error}"
    if len(frames) < 2:
        return
    keys = ["file", "label"]
    first = next(iter(frames.values()))
    if any(not frame[keys].equals(first[keys]) for frame in frames.values()):
        yield (
            "the runs were validated on different images or labels, so their winners can't be compared image by image, "
            "only by their intervals"
        )
        return
    yield from _paired({name: rights(frame) for name, frame in frames.items()})


def _paired(right: Mapping[str, Right]) -> Iterator[str]:
    """The best winner against each other one by McNemar's test."""
    best, *others = sorted(right, key=lambda name: -float(right[name].mean()))
    pairs = [mcnemar(right[best], right[name]) for name in others]
    for name, pair, p in zip(others, pairs, holm([pair.p for pair in pairs]), strict=True):
        by = points(float(right[best].mean() - right[name].mean()))
        split = (
            right_alone(best, pair.only_first, name, pair.only_second)
            + f"; p = {p:.2g} after Holm's correction"
        )
        if p < ALPHA:
            yield f"the winner of {best} beats the winner of {name} on these images by {by} ({split})"
        else:
            yield f"the winners of {best} and {name} do not differ significantly on these images: {by} ({split})"
    images = counted(len(right[best]), "validation image")
    yield (
        f"this compares trained models on the {images} that they were selected on (the best reaches "
        f"{percent(float(right[best].mean()))} there); it says nothing about settings: another seed could reverse the "
        "order"
    )


# ---------------------------------------------------------------- the page


def write_comparison(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write one HTML file about several runs to `out`, or to compare-NAME-NAME….html here by default; its path.

    Raises:
        RequestError: one of them is not a run folder, is given twice, or has a damaged record; or `out` is not .html.
    """
    read = [Snapshot.of(path) for path in paths]
    found = compare_runs(read)
    bare = "-".join(dict.fromkeys(run.config.name for run in read))
    page = out or Path(f"compare-{bare}.html")
    if page.suffix != ".html":
        raise RequestError(f"--out must be a file that ends in .html, but it is {page}")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, _page(read, found).encode())
    return page


def _page(read: Sequence[Snapshot], found: Comparison) -> str:
    runs = found.runs
    return render_page(
        "compare.html",
        runs=[
            row | {"setting": setting, "href": _href(run.folder)}
            for row, setting, run in zip(
                results.to_records(runs), found.settings, read, strict=True
            )
        ],
        differences=found.differences,
        said=found.said,
        accuracies=figure_json(plots.accuracies(runs.assign(name=runs["name"].map(escape))))
        if runs["winner"].notna().any()
        else None,
        best_by_time=_best_by_time(read, runs),
        written=now(),
    )


def _best_by_time(read: Sequence[Snapshot], runs: pd.DataFrame) -> Markup | None:
    """None if the runs have different metrics: they have no common axis."""
    if runs["metric"].nunique() > 1:
        return None
    frames = {
        escape(name): results.trials(run) for name, run in zip(runs["name"], read, strict=True)
    }
    return figure_json(plots.best_by_time(frames, Metric(runs["metric"][0])))


def _href(folder: RunFolder) -> str | None:
    """The address of the run's own report, if there is one."""
    report = folder.report.resolve()
    return report.as_uri() if report.is_file() else None
