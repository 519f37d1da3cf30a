"""What all trials of a run share: resolved by its first session, and kept by all later ones."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep.frozen.policy import cuts_of, decide_for
from sweep.frozen.rates import RateProbe
from sweep.on_ray import cluster
from sweep.on_ray.node_tasks import MustSee
from sweep.request.config import SweepConfig
from sweep.request.open_run import Run
from sweep.resources.allocation import Allocation, Node, allocate
from sweep.resources.devices import device_remarks, gpus_of, kinds, precision_on, refuse_device
from sweep.resources.packing import held_bytes, tried
from trainable.config import Precision, RunSettings, absolute
from trainable.data import open_training_data, read_split
from trainable.records.manifest import Graphs, Manifest
from trainable.show.terminal import PlainConsole


@dataclass(frozen=True)
class Resolved:
    """What a session of a run trains with, before any of it is recorded."""

    manifest: Manifest
    """The run's, with what was resolved now."""
    settings: RunSettings
    granted: Allocation
    devices: list[dict[str, Any]]
    """Every kind of device that the nodes have."""


def resolve(
    run: Run, console: PlainConsole, address: str, store_limit: int | None = None
) -> Resolved:
    """What all trials share; device, number format and threads stay as the first session resolved them.

    `store_limit` applies to this session only. Nothing is written, except for marks that nodes leave for a moment.

    Raises:
        RequestError: no node can hold a trial or has a device that the run can use, or a node can't see the folders.
    """
    found = cluster.nodes()
    here = address == "local" and not any(node.gpus for node in found)
    if run.settings is None:
        resolved = _begin(run, found, here, console)
        asked = run.config.resources.gpus_per_trial
        if address != "local" and not gpus_of(resolved.devices) and asked != 0:
            for line in cluster.unused_gpus(found):
                console.warn(line)
    else:
        resolved = _go_on(run, run.settings, found, here, console)
    for remark in device_remarks(gpus_of(resolved.devices), gpus_of(run.manifest.devices)):
        console.print(remark, soft_wrap=True)
    if resolved.manifest.sharing is None:  # the run is new, or was extended
        resolved = _share_work(run, resolved, here, console)
    settings = resolved.settings
    if store_limit is not None and settings.sharing is not None:
        limited = settings.sharing.model_copy(update={"limit_bytes": store_limit})
        settings = settings.model_copy(update={"sharing": limited})
    return replace(resolved, settings=settings)


def _go_on(
    run: Run, recorded: RunSettings, found: list[Node], here: bool, console: PlainConsole
) -> Resolved:
    """As the first session resolved it, including a trial's share of a GPU unless that was changed since."""
    config, before = run.config, run.manifest.resources
    settings = recorded.model_copy(update={"store": own_store()})
    devices = _look_at(run, found, settings.device == "cuda", here)
    refuse_device(settings, gpus_of(devices))
    resources = config.resources
    if resources.gpus_per_trial == "auto" and before is not None:
        resources = resources.model_copy(update={"gpus_per_trial": before.gpus_per_trial})
    granted = allocate(resources, found, config.trials)
    if before is not None and granted.cpus != before.cpus_per_trial:
        console.print(
            f"CPUs per trial: {granted.cpus}; their threads stay {settings.threads}, as at the start: another number "
            "would change the last digits",
            soft_wrap=True,
        )
    if before is not None and granted.gpus != before.gpus_per_trial:
        settings = settings.model_copy(update={"gpu_share": min(1.0, granted.gpus)})
    return Resolved(run.manifest, settings, granted, devices)


def _begin(run: Run, found: list[Node], here: bool, console: PlainConsole) -> Resolved:
    """As the configuration and the devices determine it, with the manifest that records it."""
    config, images = run.config, run.manifest.image_folder
    granted = allocate(config.resources, found, config.trials)
    devices = _look_at(run, found, granted.gpus > 0, here)
    gpus = gpus_of(devices) if granted.gpus > 0 else []
    if granted.gpus > 0 and not gpus and config.resources.gpus_per_trial == "auto":
        # Ray counts GPUs that torch can't use: trials get CPUs, as if there were none
        granted = allocate(
            config.resources.model_copy(update={"gpus_per_trial": 0}), found, config.trials
        )
    precision = precision_on(gpus, config.resources.precision)
    graphs = _graphs(config, found, granted, precision, console) if gpus else None
    settings = RunSettings(
        folder=config.folder.absolute(),
        images=images,
        image_size=config.data.image_size,
        weights=config.model.weights,
        width=config.model.width,
        epochs=config.epochs,
        metric=config.metric,
        collapse_epochs=config.guards.collapse_epochs,
        device="cuda" if gpus else "cpu",
        precision=precision,
        tf32=False,  # plain float32 can be compared and resumed on other machines
        graphs=graphs is not None and graphs.used,
        views_made_on="device" if gpus else "host",
        threads=granted.cpus,
        workers=granted.cpus,
        store=own_store(),
        store_format=config.store.format if precision == "float32" else "computed",
    )
    packing = None
    if gpus:
        granted, packing = _pack(run, settings, found, granted, console)
        settings = settings.model_copy(
            update={
                "gpu_share": min(1.0, granted.gpus),
                "threads": granted.cpus,
                "workers": granted.cpus,
            }
        )
    manifest = run.manifest.with_resources(granted.granted(), graphs, packing)
    return Resolved(manifest, settings, granted, devices)


def _look_at(run: Run, found: list[Node], gpus: bool, here: bool) -> list[dict[str, Any]]:
    """Every kind of device that the nodes have, after a check that all nodes see what they must."""
    folder, images = run.folder, run.manifest.image_folder
    first = str(read_split(folder.split, ("train",))["file"].iloc[0])
    asked = MustSee(folder.path, images, first, len(run.manifest.sessions) + 1)
    return kinds(cluster.look_at(found, asked, gpus=gpus, here=here))


def _graphs(
    config: SweepConfig,
    found: list[Node],
    granted: Allocation,
    precision: Precision,
    console: PlainConsole,
) -> Graphs:
    """Are training steps captured as graphs?"""
    asked = config.resources.graphs
    if asked != "auto":
        return Graphs(used=asked == "on", why=f"resources.graphs: {asked}")
    problem = cluster.graph_problem(found, granted, precision)
    if problem:
        console.warn(
            f"training steps run without CUDA graphs, since a test of them failed: {problem}"
        )
    return Graphs(used=not problem, why=problem or "a test of them passed")


def _pack(
    run: Run,
    settings: RunSettings,
    found: list[Node],
    granted: Allocation,
    console: PlainConsole,
) -> tuple[Allocation, dict[str, Any]]:
    """A trial's share of a GPU where that is left to us: half if two trials side by side are faster than one."""
    config = run.config
    if config.resources.gpus_per_trial != "auto":
        return granted, {"why": "resources.gpus_per_trial was given"}
    asked = config.resources.concurrent
    if (config.trials if asked == "auto" else asked) <= sum(node.gpus for node in found):
        return granted, {"why": "there is a GPU for each trial that runs at a time"}
    console.print("trying one and two trials on a GPU …", style="bright_black")
    parts = read_split(run.folder.split, ("train", "validation"))["part"].value_counts()
    images = int(parts["train"]), int(parts["validation"])
    held = held_bytes(config, images, 4 if settings.precision == "float32" else 2)
    packed = cluster.measure_packing(found, settings, tried(config), held)
    if isinstance(packed, str):
        console.warn(f"each trial gets a whole GPU, since two could not be tried on one: {packed}")
        return granted, {"why": packed}
    console.print(packed.said(), soft_wrap=True)
    resources = config.resources.model_copy(update={"gpus_per_trial": packed.share})
    return allocate(resources, found, config.trials), packed.facts()


def own_store() -> Path | None:
    """`SWEEP_STORE` applies to every node if it is set here; otherwise each node has its own default."""
    given = os.environ.get("SWEEP_STORE")
    return absolute(given, "SWEEP_STORE") if given else None


def _share_work(run: Run, resolved: Resolved, here: bool, console: PlainConsole) -> Resolved:
    """Decide by measured rates which frozen work is kept; what an earlier session kept does not count."""
    config, granted = run.config, resolved.granted
    settings = resolved.settings.model_copy(update={"sharing": None})

    def decided(settings: RunSettings, facts: dict[str, Any]) -> Resolved:
        manifest = resolved.manifest.with_settings(settings, facts)
        return replace(resolved, settings=settings, manifest=manifest)

    if config.sharing == "off":
        return decided(settings, {"off": "sharing: off"})
    data = open_training_data(run.folder.split, settings.images, settings.image_size)
    probe = RateProbe(
        cuts=tuple(cuts_of(config)),
        images=data.training,
        threads=settings.threads,
        device=settings.device,
        precision=settings.precision,
        limit_bytes=config.store.limit,
        store=settings.store,
    )
    rates = cluster.measure_rates_on_a_node(
        granted, settings.weights, settings.width, probe, here=here
    )
    if isinstance(rates, str):
        console.warn(f"frozen features are not shared, since the store can't be used: {rates}")
        return decided(settings, {"off": rates})
    plan = decide_for(
        config,
        rates,
        len(data.training),
        len(data.validation),
        half=settings.precision != "float32",
    )
    console.print(plan.said(), soft_wrap=True)
    sharing = plan.sharing(config.store.limit)
    return decided(settings.model_copy(update={"sharing": sharing}), plan.facts())
