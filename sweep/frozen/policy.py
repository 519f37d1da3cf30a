"""Which frozen work a node keeps: decided by cost, from rates measured there and known sizes."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations, pairwise
from typing import Any, Final, get_args

from sweep.frozen.rates import Rates
from sweep.request.config import SweepConfig
from trainable.config import Family, Kept, Sharing
from trainable.frozen.chunks import PIXELS
from trainable.network.model import CUTS, feature_layers, map_shapes
from trainable.show.wording import duration

WORTH: Final = 0.99  # a smaller choice wins if it is at most 1 % slower than the fastest; assumed


@dataclass(frozen=True)
class Demand:
    """How often features at one cut are needed, and for how many different views of images."""

    cut: int
    family: Family
    uses: float
    distinct: int

    @property
    def kept(self) -> Kept:
        """What the store must keep to meet it."""
        return Kept(self.cut, self.family)


@dataclass(frozen=True)
class StorePlan:
    """What is kept, and why."""

    kept: tuple[Kept, ...]
    bytes: int
    """Used on a node's disk, at most."""
    held_bytes: int
    """Read by one trial in an epoch, at most."""
    seconds_plain: float
    """Predicted seconds of decoding and frozen layers, over all slots, without the store."""
    seconds_shared: float
    """The same with the store."""
    fill_seconds: float
    """Predicted seconds for one trial to decode, compute and write everything that is kept, once."""
    rates: Rates

    def sharing(self, limit_bytes: int | None) -> Sharing:
        """As trials get it: on a GPU, features are held in its memory as far as each trial finds it free."""
        resident = self.rates.gpu_bytes > 0
        return Sharing(kept=frozenset(self.kept), limit_bytes=limit_bytes, resident=resident)

    def said(self) -> str:
        """As a line of text."""
        names = [what_is_kept(each) for each in self.kept]
        if not names:
            return "sharing: nothing is worth keeping between epochs and trials here"
        return (
            f"sharing: {', '.join(names)} (at most {self.bytes / 1e9:,.2f} GB per node); frozen work takes "
            f"about {duration(self.seconds_shared)} of slot time, {duration(self.seconds_plain)} without sharing"
        )

    def facts(self) -> dict[str, Any]:
        """As recorded in the manifest."""
        return asdict(self) | {"kept": [str(each) for each in self.kept]}


def what_is_kept(kept: Kept) -> str:
    """In words."""
    cut, family = kept
    if cut == PIXELS:
        return "decoded images"
    strategy = next(each for each, at in CUTS.items() if at == cut)
    where = "after all layers" if strategy == "head" else f"before {strategy}"
    return f"features {where}" + (" of each epoch's views" if family == "epoch" else "")


@cache
def feature_bytes(width: float, image_size: int, cut: int, item: int) -> int:
    """Bytes of one image's features before layer `cut`, or of its pixels where `cut` is 0."""
    if cut == PIXELS:
        return 3 * image_size**2
    side, channels = map_shapes(feature_layers(width), image_size)[cut]
    return channels * side**2 * item


def demands(config: SweepConfig, training: int, validation: int) -> list[Demand]:
    """What a sweep needs of the frozen layers if it tries every value of a setting equally often."""
    strategies, augmentations = config.values_of("strategy"), config.values_of("augmentation")
    pools = [v for v in config.values_of("views") if isinstance(v, int)]
    epochs = expected_epochs(config)
    found = []
    for strategy in strategies:
        trials = config.trials / len(strategies)
        jittered = trials * augmentations.count("flip_jitter") / len(augmentations)
        fixed = trials - jittered
        looks = 2 if "flip" in augmentations else 1
        cut = CUTS[strategy]  # type: ignore[index]
        uses = fixed * epochs * training + trials * epochs * validation
        found.append(Demand(cut, "fixed", uses, (training * looks if fixed else 0) + validation))
        if jittered:
            views = min(config.epochs, max(pools, default=config.epochs))
            found.append(Demand(cut, "epoch", jittered * epochs * training, training * views))
    return found


def expected_epochs(config: SweepConfig) -> float:
    """Mean epochs of a trial if ASHA lets one in `reduction_factor` pass each rung."""
    if config.asha is None:
        return float(config.epochs)
    marks = [0, *config.asha.rungs(config.epochs), config.epochs]
    factor = float(config.asha.reduction_factor)
    spans = (high - low for low, high in pairwise(marks))
    return sum(span / math.pow(factor, passed) for passed, span in enumerate(spans))


def decide_for(
    config: SweepConfig, rates: Rates, training: int, validation: int, half: bool
) -> StorePlan:
    """What to keep for a sweep; `half` says whether its frozen layers compute in half precision."""
    item = 2 if half or config.store.format == "float16" else 4

    def size(cut: int) -> int:
        return feature_bytes(config.model.width, config.data.image_size, cut, item)

    asked = demands(config, training, validation)
    return decide(asked, rates, training + validation, size)


def cuts_of(config: SweepConfig) -> list[int]:
    """All cuts that the sweep's strategies need."""
    return [CUTS[strategy] for strategy in config.values_of("strategy")]  # type: ignore[index]


def decide(
    asked: Sequence[Demand],
    rates: Rates,
    images: int,
    size: Callable[[int], int],
) -> StorePlan:
    """The choice with the least predicted time that fits within the limit.

    `images` is how many train or validate; `size(cut)` is the bytes of one image's features there.
    """
    choices = [Kept(PIXELS, "fixed"), *sorted({d.kept for d in asked if d.cut != PIXELS})]

    def taken(kept: Iterable[Kept]) -> int:
        return sum(
            size(each.cut)
            * (images if each.cut == PIXELS else max(d.distinct for d in asked if d.kept == each))
            for each in kept
        )

    plain = slot_seconds(asked, rates, images, size, frozenset())
    options = [
        (slot_seconds(asked, rates, images, size, frozenset(kept)), taken(kept), kept)
        for count in range(len(choices) + 1)
        for kept in combinations(choices, count)
        if taken(kept) <= rates.limit_bytes
    ]
    least = min(seconds for seconds, _, _ in options)
    seconds, takes, kept = min(
        (each for each in options if each[0] * WORTH <= least), key=lambda each: each[1]
    )
    held = max(
        (
            size(cut) * (images + sum(d.distinct for d in asked if d.kept == (cut, "fixed")))
            for cut, _ in kept
            if cut != PIXELS
        ),
        default=0,
    )
    filling = fill_seconds(asked, rates, images, size, frozenset(kept))
    return StorePlan(kept, takes, held, plain, seconds, filling, rates)


def slot_seconds(
    asked: Sequence[Demand],
    rates: Rates,
    images: int,
    size: Callable[[int], int],
    kept: frozenset[Kept],
) -> float:
    """Predicted seconds of decoding, frozen layers, reading and writing."""
    total = fill_seconds(asked, rates, images, size, kept)
    for d in asked:
        if d.kept in kept:
            total += size(d.cut) * d.uses * rates.read
        else:
            stages = (d.uses * _input(rates, size, kept), d.uses * rates.frozen(d.cut))
            total += together(stages, rates.stages_overlap)
    return total


def fill_seconds(
    asked: Sequence[Demand],
    rates: Rates,
    images: int,
    size: Callable[[int], int],
    kept: frozenset[Kept],
) -> float:
    """Predicted seconds to decode, compute and write everything that is kept, once."""
    total = 0.0
    if (PIXELS, "fixed") in kept:
        pixels = (images * rates.decode, images * size(PIXELS) * rates.write)
        total += together(pixels, rates.stages_overlap)
    for family in get_args(Family):
        features = [d for d in asked if d.family == family and d.cut != PIXELS]
        here = [d for d in features if d.kept in kept]
        if not here:
            continue
        deepest, views = max(d.cut for d in here), max(d.distinct for d in here)
        written = sum(size(d.cut) * d.distinct for d in here)
        stages = (
            views * _input(rates, size, kept),
            views * rates.frozen(deepest),
            written * rates.copy,
            written * rates.write,
        )
        total += together(stages, rates.stages_overlap)
    return total


def together(stages: Iterable[float], overlap: bool) -> float:
    """Seconds for all stages: those of the slowest where they overlap, otherwise their sum."""
    return max(stages) if overlap else sum(stages)


def _input(rates: Rates, size: Callable[[int], int], kept: frozenset[Kept]) -> float:
    """Seconds to get the pixels of an image."""
    return rates.read * size(PIXELS) if (PIXELS, "fixed") in kept else rates.decode
