"""The configuration and the data, the run's origin, and how to reproduce it."""

import shlex
from collections.abc import Mapping
from typing import Any

from analysis import wording
from analysis.frames import results
from sweep.request.config import SweepConfig
from sweep.request.open_run import Run
from sweep.request.space import Choice, Dimension, Range
from trainable.config import RunSettings
from trainable.data import PARTS, balance, read_split
from trainable.records.manifest import Graphs, Images, Manifest, Overlap
from trainable.records.run_folder import RunFolder
from trainable.show.wording import devices_said, duration

Pairs = list[tuple[str, str]]


def provenance(run: Run) -> dict[str, Any]:
    """The facts of the sections on configuration, data and origin; what is not in the manifest is left out."""
    config, manifest = run.config, run.manifest
    return {
        "searched": [_searched(dimension) for dimension in config.space.dimensions],
        "fixed": [(name, wording.setting_value(value)) for name, value in config.space.fixed],
        "asked": _asked(config),
        "yaml": manifest.configuration.text,
        "split": _split(run.folder),
        "larger_class": _larger_class(run.folder),
        "image_facts": _image_facts(manifest.images),
        "understood": manifest.understood,
        "overlap": _overlap(manifest.images.overlap),
        "commands": _commands(run),
        "origin": _origin(manifest),
        "seeds": _pairs(manifest.seeds),
        "packages": _pairs(manifest.packages),
        "digests": _pairs(manifest.digests.model_dump(exclude_none=True)),
        "sessions": manifest.sessions,
    }


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
        "the official partition"
        if data.split.official
        else f"from column {data.split.column!r}"
        if data.split.column is not None
        else f"{data.split.validation:g} for validation, {data.split.test:g} for testing, "
        f"stratified, seed {data.split.seed}"
    )
    limit = f", at most {duration(search.time_limit)}" if search.time_limit else ""
    first = f", {wording.counted(len(search.first), 'given point')} first" if search.first else ""
    collapse = config.guards.collapse_epochs
    return [
        ("Target", data.target + (f", positive value {data.positive}" if data.positive else "")),
        ("Images", str(data.images)),
        ("Table", str(data.table) if data.table else "found beside the images"),
        ("Image size", f"{data.image_size} × {data.image_size} pixels"),
        ("Split", parts),
        ("Backbone", f"VGG-16, weights {config.model.weights}, width {config.model.width:g}"),
        ("Budget", wording.counted(config.epochs, "epoch") + " per trial"),
        (
            "Search",
            f"{search.method}, {wording.counted(config.trials, 'trial')}, seed {search.seed}{first}{limit}",
        ),
        ("Selection metric", wording.metric_name(config.metric)),
        (
            "Pruning",
            f"ASHA after epochs {', '.join(map(str, rungs))}, reduction factor {asha.reduction_factor}"
            + (", separately for each strategy" if asha.rungs_of == "strategy" else "")
            if asha and rungs
            else "off",
        ),
        (
            "Collapse guard",
            f"stops a trial after {wording.counted(collapse, 'epoch')} that predict only one class"
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


def _image_facts(images: Images) -> Pairs:
    """Counts of images; reasons for leaving out images are named only if they occurred."""
    unlabelled, unreadable = len(images.unlabelled), len(images.unreadable)
    found = [
        ("images", images.count),
        ("rows left out because their image is missing", len(images.dropped)),
        *([("images left out because they have no label", unlabelled)] if unlabelled else []),
        *([("images left out because they are unreadable", unreadable)] if unreadable else []),
    ]
    return [(label, f"{count:,}") for label, count in found]


def _overlap(found: Overlap | None) -> str:
    """How the parts of the split overlap, in a sentence; "" if that was not checked."""
    if found is None:
        return ""
    pictures = (
        f"{wording.counted(len(found.pairs_across_parts), 'pair')} of identical or nearly identical pictures across "
        "two parts of the split"
        if found.pairs_across_parts
        else "no picture was found in two parts of the split"
    )
    if found.persons_across_parts is None:
        persons = "identities are not known, so the same person may be in several parts"
    elif found.persons_across_parts:
        persons = (
            f"{found.persons_across_parts:,} {'person is' if found.persons_across_parts == 1 else 'people are'} in "
            f"several parts, with {wording.counted(found.test_images_of_known_persons or 0, 'test image')}"
        )
    else:
        persons = "no person is in more than one part"
    return f"Overlap: {pictures}; {persons}."


# ---------------------------------------------------------------- how to repeat it


def _commands(run: Run) -> list[str]:
    again, storage = f"{run.config.name}-again", run.folder.path.absolute().parent
    moved = storage != run.config.storage
    folder = shlex.quote(str(storage / again))
    commit = run.manifest.git_commit
    return [
        *([f"git checkout {commit}"] if commit else []),
        f"sweep run {shlex.quote(str(run.folder.config.absolute()))} name={again}"
        + (f" storage={shlex.quote(str(storage))}" if moved else ""),
        f"analysis test {folder}",
        f"analysis report {folder}",
    ]


def _origin(manifest: Manifest) -> Pairs:
    """The run's origin; what is not known is left out."""
    settings, granted = manifest.settings, manifest.resources
    dirty = manifest.git_dirty
    found = [
        *(("command", asked.said) for asked in manifest.configurations),
        ("created", wording.moment(manifest.created)),
        ("host", manifest.host),
        ("project version", manifest.project_version),
        ("commit", manifest.git_commit),
        (
            "uncommitted changes",
            dirty
            if dirty is None
            else "yes: the commit alone does not reproduce it"
            if dirty
            else "no",
        ),
        ("Python", manifest.python),
        ("device", settings and settings.device),
        *(("hardware", said) for said in devices_said(manifest.devices)),
        ("number format", settings and settings.precision),
        *(_kernels(settings, manifest.graphs) if settings else []),
        ("threads per trial", settings and settings.threads),
        ("GPUs per trial", granted and f"{granted.gpus_per_trial:g}"),
        ("trials at a time", granted and granted.concurrent),
    ]
    return [(label, str(value)) for label, value in found if value is not None]


def _kernels(settings: RunSettings, graphs: Graphs | None) -> Pairs:
    """How a GPU computed."""
    if settings.device != "cuda":
        return []
    why = f": {graphs.why}" if graphs else ""
    return [
        ("float32 convolutions round to TF32", "yes" if settings.tf32 else "no"),
        ("training steps as CUDA graphs", ("yes" if settings.graphs else "no") + why),
    ]


def _pairs(facts: Mapping[str, object]) -> Pairs:
    return [(name, str(value)) for name, value in facts.items()]
