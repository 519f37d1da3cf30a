"""One HTML file about a run that opens offline, from the same frames as everything else."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from markupsafe import Markup

from analysis import plots, results, wording
from analysis.cost import cost_of
from analysis.effects import effects_of
from analysis.finalists import Finalists, compare_finalists
from analysis.ledger import Opening, alarm_of, how_often, read_ledger, reasons
from analysis.page import figure_json, render_page
from analysis.reference import beside_reports
from analysis.replicates import compare_replicates
from analysis.select import Selection, select, why_unfinished
from analysis.statistics import Confusion, confusion
from sweep.config import SweepConfig
from sweep.space import Choice, Dimension, Range
from sweep.study import asked_in_all
from trainable.command import duration, frozen_work_said
from trainable.config import RequestError
from trainable.data import PARTS, balance, read_split
from trainable.files import now, write_atomically
from trainable.metric import Metric
from trainable.record import RunFolder, TrialRecord
from trainable.rows import Status

FINALISTS: Final = 5
MANY: Final = 30  # trials; a longer table scrolls in a frame of its own
Pairs = list[tuple[str, str]]


def write_report(run: Path) -> Path:
    """Write report.html into the run folder `run`; its path.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    path = RunFolder(run).report
    write_atomically(path, render(run).encode())
    return path


def render(run: Path) -> str:
    """The report as HTML that loads nothing from anywhere.

    Raises:
        RequestError: no run folder, or a damaged record.
    """
    config, folder = results.load_config(run), RunFolder(run)
    manifest = folder.read_manifest()
    trials, epochs = results.trials(run), results.epochs(run)
    selection, openings = select(folder, config.metric), read_ledger(folder)
    settings = results.varied(trials)
    winner = selection.winner.trial_id if selection.winner is not None else None
    lacks = why_unfinished(folder)
    effects = effects_of(run)
    cards = _cards(folder, trials, epochs, selection, settings)
    return render_page(
        "report.html",
        name=config.name,
        target=config.data.target,
        classes=manifest.get("classes") or ["0", "1"],
        metric=config.metric,
        metric_name=wording.metric_name(config.metric),
        lacks=lacks,
        ended=_ended(manifest),
        statuses=[(s.value, int((trials["status"] == s.value).sum())) for s in Status],
        asked_for=asked_in_all(config, folder.trials()),
        notices=list(_notices(folder, manifest, selection, openings, lacks)),
        alarm=alarm_of(folder, openings),
        cards=cards,
        winner=next((card for card in cards if card.trial_id == winner), None),
        settings=settings,
        many=len(cards) > MANY,
        finalists=_finalists(run),
        replication=compare_replicates(run),
        beside=results.to_records(beside_reports(run)),
        cost=list(cost_of(run).said()),
        openings=openings,
        how_often=how_often(openings),
        test_command=f"analysis test {shlex.quote(str(run))}",
        scale=_scale(openings),
        larger_class=_larger_class(folder),
        history=figure_json(plots.history(trials, config.metric, settings, winner)),
        timeline=figure_json(plots.timeline(trials, settings, winner)),
        heat_map=_heat_map(trials, config.metric),
        effects=effects,
        importances=figure_json(plots.importances(effects.importances))
        if effects.importances
        else None,
        overview=figure_json(
            plots.validation_by_epoch(epochs, trials, config.metric, settings, winner)
        ),
        by_setting=[
            (
                name,
                figure_json(plots.best_by_setting(trials, config.metric, name, settings, winner)),
            )
            for name in settings
            if trials[f"config/{name}"].nunique() > 1
        ],
        searched=[_searched(dimension) for dimension in config.space.dimensions],
        winner_settings=_winner_settings(folder, winner),
        fixed=[(name, wording.setting_value(value)) for name, value in config.space.fixed],
        asked=_asked(config),
        yaml=folder.config.read_text(encoding="utf-8"),
        split=_split(folder),
        image_facts=_image_facts(manifest),
        overlap=_overlap(manifest),
        commands=_commands(folder, config, manifest),
        frozen_work=frozen_work_said(results.work(run)),
        origin=_origin(manifest),
        seeds=_pairs(manifest.get("seeds")),
        packages=_pairs(manifest.get("packages")),
        digests=_pairs(manifest.get("digests")),
        sessions=manifest.get("sessions") or [],
        written=now(),
    )


# ---------------------------------------------------------------- trials


@dataclass(frozen=True)
class Card:
    """What the report shows of one trial."""

    rank: int | None
    trial_id: str
    facts: dict[str, Any]
    """Its row of the trial frame; what is missing is None."""
    value: str
    setting: str
    gap: str
    """Training minus validation accuracy at the best epoch."""
    loss: Markup | None
    accuracy: Markup | None
    matrix: Confusion | None
    no_matrix: str
    """Why there is no confusion matrix."""


def _cards(
    run: RunFolder,
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    selection: Selection,
    settings: Sequence[str],
) -> list[Card]:
    """Trials best first, then those without a finished epoch in the order of suggestion."""
    place = {one.trial_id: rank for rank, one in enumerate(selection.ranked, start=1)}
    curves = dict(list(epochs.groupby("trial_id", sort=False)))
    rows = sorted(
        results.to_records(trials), key=lambda row: place.get(row["trial_id"], len(trials) + 1)
    )
    return [
        _card(
            run.trial(row["trial_id"]),
            row,
            place.get(row["trial_id"]),
            curves.get(row["trial_id"]),
            selection.metric,
            settings,
        )
        for row in rows
    ]


def _card(
    record: TrialRecord,
    row: dict[str, Any],
    rank: int | None,
    curve: pd.DataFrame | None,
    metric: Metric,
    settings: Sequence[str],
) -> Card:
    best_epoch = row["best_epoch"]
    matrix, no_matrix = _matrix(record, best_epoch)
    return Card(
        rank=rank,
        trial_id=record.trial_id,
        facts=row,
        value=wording.metric_value(metric, row[metric.value]),
        setting=wording.setting(row, settings),
        gap=wording.points(row["train_accuracy"] - row["val_accuracy"]) if best_epoch else "",
        loss=None if curve is None else figure_json(plots.loss(curve, best_epoch)),
        accuracy=None if curve is None else figure_json(plots.accuracy(curve, best_epoch)),
        matrix=matrix,
        no_matrix=no_matrix,
    )


def _matrix(record: TrialRecord, best_epoch: int | None) -> tuple[Confusion | None, str]:
    """The confusion matrix of the best validation epoch, or why there is none."""
    if best_epoch is None:
        return None, "no epoch was finished"
    if not record.has_predictions(best_epoch):
        return None, "the validation predictions of its best epoch were not kept"
    try:
        found = record.predictions(best_epoch)
    except RequestError as error:
        return None, str(error)
    logits, labels = (torch.tensor(found[name].to_numpy()) for name in ("logit", "label"))
    return confusion(logits, labels), ""


def _winner_settings(run: RunFolder, winner: str | None) -> Pairs:
    """Every setting that acts in the winner."""
    if winner is None:
        return []
    settings = run.trial(winner).origin.settings.effective()
    return [(name, wording.setting_value(value)) for name, value in settings.items()]


def _heat_map(trials: pd.DataFrame, metric: Metric) -> Markup | None:
    """Strategy × learning rate; None where one of them does not vary."""
    known = trials[trials[metric.value].notna()]
    if min(known["config/strategy"].nunique(), known["config/lr"].nunique()) < 2:
        return None
    return figure_json(plots.heat_map(trials, metric))


def _finalists(run: Path) -> Finalists | None:
    """The best finished trials compared; None where there are not two, or their predictions are gone."""
    try:
        return compare_finalists(run, FINALISTS)
    except RequestError:
        return None


# ---------------------------------------------------------------- what must be said


def _notices(
    run: RunFolder,
    manifest: Mapping[str, Any],
    selection: Selection,
    openings: Sequence[Opening],
    lacks: str | None,
) -> Iterator[str]:
    if lacks is not None:
        yield f"This sweep is not finished: {lacks}. What stands here can change."
    yield from (_sentence(remark) for remark in selection.remarks())
    if len(openings) > 1:
        yield how_often(openings) + " Each opening after the first makes its number less of a test."
    yield from (_sentence(reason) for reason in reasons(openings))
    if openings and selection.winner is not None:
        tested = openings[-1].winner
        if (tested.trial_id, tested.epoch) != (
            selection.winner.trial_id,
            selection.winner.best.epoch,
        ):
            yield (
                f"The test set was opened for trial {tested.trial_id} at epoch {tested.epoch}; "
                f"by validation the winner is now {selection.say(selection.winner)}."
            )
    yield from (_sentence(warning) for warning in manifest.get("warnings") or [])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _ended(manifest: Mapping[str, Any]) -> str | None:
    sessions = manifest.get("sessions") or [{}]
    ended: str | None = sessions[-1].get("ended")
    return ended


@dataclass(frozen=True)
class Scale:
    """Where interval, test and validation accuracy lie on a bar, in percent of its width; and its two ends."""

    start: str
    end: str
    low: float
    high: float
    test: float
    validation: float | None


def _scale(openings: Sequence[Opening]) -> Scale | None:
    """A bar that holds the interval and, where it decided, the validation accuracy, with some room."""
    if not openings or openings[-1].result is None:
        return None
    result, winner = openings[-1].result, openings[-1].winner
    interval = result.accuracy_interval
    validation = winner.value if winner.metric is Metric.VAL_ACCURACY else None
    shown = [interval.low, interval.high] + ([] if validation is None else [validation])
    room = max(0.25 * (max(shown) - min(shown)), 0.002)
    start, end = max(0.0, min(shown) - room), min(1.0, max(shown) + room)

    def place(share: float) -> float:
        return round(100 * (share - start) / (end - start), 2)

    return Scale(
        wording.percent(start, 1),
        wording.percent(end, 1),
        place(interval.low),
        place(interval.high),
        place(result.accuracy),
        None if validation is None else place(validation),
    )


# ---------------------------------------------------------------- what was asked


def _searched(dimension: Dimension) -> tuple[str, str, str]:
    """Name, values and condition of a searched setting."""
    condition = " and ".join(
        f"{name} is {' or '.join(map(str, values))}" for name, values in dimension.when
    )
    return dimension.name, _domain(dimension.domain), condition


def _domain(domain: Choice | Range) -> str:
    if isinstance(domain, Choice):
        return ", ".join(map(wording.setting_value, domain.values))
    ends = f"{domain.low:g} to {domain.high:g}"
    return {
        "uniform": ends,
        "loguniform": f"{ends}, logarithmic",
        "int": f"{ends}, whole numbers",
        "logint": f"{ends}, whole numbers, logarithmic",
        "quniform": f"{ends} in steps of {domain.step or 0:g}",
    }[domain.kind]


def _asked(config: SweepConfig) -> Pairs:
    """The configuration in words, without the space."""
    data, search, asha = config.data, config.search, config.asha
    rungs = asha.rungs(config.epochs) if asha else []
    parts = (
        "as the official partition file says"
        if data.split.official
        else f"{data.split.validation:g} for validation, {data.split.test:g} for the test, "
        f"stratified, seed {data.split.seed}"
    )
    limit = f", at most {duration(search.time_limit)}" if search.time_limit else ""
    first = f", {wording.counted(len(search.first), 'point')} given first" if search.first else ""
    collapse = config.guards.collapse_epochs
    return [
        ("Target", data.target + (f", positive is {data.positive}" if data.positive else "")),
        ("Images", str(data.images)),
        ("Table", str(data.table) if data.table else "found beside the images"),
        ("Image size", f"{data.image_size} × {data.image_size} pixels"),
        ("Split", parts),
        ("Backbone", f"VGG-16, weights {config.model.weights}, width {config.model.width:g}"),
        ("Budget", wording.counted(config.epochs, "epoch") + " a trial"),
        (
            "Search",
            f"{search.method}, {wording.counted(config.trials, 'trial')}, seed {search.seed}{first}{limit}",
        ),
        ("Decided by", wording.metric_name(config.metric)),
        (
            "Pruning",
            f"ASHA after epochs {', '.join(map(str, rungs))}, reduction factor {asha.reduction_factor}"
            if asha and rungs
            else "off",
        ),
        (
            "Collapse guard",
            f"ends a trial after {wording.counted(collapse, 'epoch')} that predict one class"
            if collapse
            else "off",
        ),
        ("Weights kept", f"of the best {wording.counted(config.keep.best, 'trial')}"),
    ]


# ---------------------------------------------------------------- the data


def _split(run: RunFolder) -> list[dict[str, Any]]:
    """Counts and balance of each part; no image is opened for it."""
    counts = balance(read_split(run.split, PARTS)).rename_axis("part").reset_index()
    return results.to_records(counts)


def _larger_class(run: RunFolder) -> float:
    """The test accuracy of always predicting the class that is more frequent there."""
    share = read_split(run.split, ("test",))["label"].mean()
    return max(share, 1 - share)


def _image_facts(manifest: Mapping[str, Any]) -> Pairs:
    images = manifest.get("images") or {}
    dropped = images.get("dropped") or []
    unreadable = images.get("unreadable") or []
    return [
        (label, f"{value:,}")
        for label, value in (
            ("images", images.get("count")),
            ("rows left out for want of an image", len(dropped) if images else None),
            ("images left out as unreadable", len(unreadable) if unreadable else None),
        )
        if value is not None
    ]


def _overlap(manifest: Mapping[str, Any]) -> str:
    """What of the test images the training has seen before, in a sentence; "" where nobody looked."""
    found = (manifest.get("images") or {}).get("overlap")
    if found is None:
        return ""
    pairs = found["pairs_across_parts"]
    pictures = (
        f"{wording.counted(len(pairs), 'pair')} of the same or nearly the same picture stand in two parts of the split"
        if pairs
        else "no picture was found in two parts of the split"
    )
    if found["persons_across_parts"] is None:
        persons = "who is on the pictures is not known, so a person may be in several parts"
    elif found["persons_across_parts"]:
        persons = (
            f"{wording.counted(found['persons_across_parts'], 'person')} are in several parts, with "
            f"{wording.counted(found['test_images_of_known_persons'], 'test image')}"
        )
    else:
        persons = "no person is in two parts"
    return f"Overlap: {pictures}; {persons}."


# ---------------------------------------------------------------- how to repeat it


def _commands(run: RunFolder, config: SweepConfig, manifest: Mapping[str, Any]) -> list[str]:
    again = f"{config.name}-again"
    folder = shlex.quote(str(config.storage / again))
    commit = manifest.get("git_commit")
    return [
        *([f"git checkout {commit}"] if commit else []),
        f"sweep run {shlex.quote(str(run.config.absolute()))} name={again}",
        f"analysis test {folder}",
        f"analysis report {folder}",
    ]


def _origin(manifest: Mapping[str, Any]) -> Pairs:
    """Where the run came from; what the manifest does not say is left out."""
    settings, granted = manifest.get("settings") or {}, manifest.get("resources") or {}
    commands = [entry["command"] for entry in manifest.get("configurations", [])]
    dirty = manifest.get("git_dirty")
    found = [
        *(("command", shlex.join(command)) for command in commands),
        ("made", manifest.get("created") and wording.moment(manifest["created"])),
        ("on", manifest.get("host")),
        ("project version", manifest.get("project_version")),
        ("commit", manifest.get("git_commit")),
        (
            "uncommitted changes",
            dirty
            if dirty is None
            else "yes: the commit alone does not repeat it"
            if dirty
            else "no",
        ),
        ("Python", manifest.get("python")),
        ("device", settings.get("device")),
        ("number format", settings.get("precision")),
        ("threads a trial", settings.get("threads")),
        ("GPUs a trial", granted.get("gpus_per_trial")),
        ("trials at a time", granted.get("concurrent")),
    ]
    return [(label, str(value)) for label, value in found if value is not None]


def _pairs(facts: Mapping[str, Any] | None) -> Pairs:
    return [(name, str(value)) for name, value in (facts or {}).items()]
