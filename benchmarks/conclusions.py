"""Are the conclusions true? Simulates searches with a known truth, and asks the project's own functions about them.

Trials differ by their settings, by seed (0.45 points), by epoch (0.3 points) and by how each of them handles the
validation images, which all share. ASHA decides with `sweep.search.asha`, settings come from `sweep.search.proposals`.
Prints how often each conclusion was drawn, with Wilson's interval, and writes JSON.

    python benchmarks/conclusions.py [--runs 400] [--first 0] [--only NAME] [--out conclusions.json]
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from analysis.findings.effects.audited import Audited
from analysis.findings.effects.claims import Effect, Mattered, Verdict
from analysis.findings.effects.endings import rise_of
from analysis.findings.effects.learning import LearningCurve, Moment, moment_of
from analysis.findings.effects.said import Saying
from analysis.findings.effects.verdicts import what_mattered
from analysis.findings.pruning import wanted
from analysis.statistics import wilson
from sweep.request.config import SweepConfig
from sweep.search.asha import Rungs
from sweep.search.proposals import Proposals
from sweep.search.study import Recorded
from sweep.session.audit import draw as draw_audits
from trainable.config import TrialConfig
from trainable.metric import Metric, chance_area
from trainable.records.rows import Status

EPOCHS: Final = 8
METRIC: Final = Metric.VAL_ACCURACY
SLOTS: Final = 4
IMAGE, IN_STRATEGY, IN_TRIAL, IN_EPOCH = 0.86, 0.05, 0.05, 0.04
"""Shares of the variance that decides whether an image is right: most of it is common to all trials."""
COLLAPSED: Final = 0.575
LISTED: Final = {"lr": [1e-4, 3e-4, 1e-3], "seed": [1, 2]}
RANGE: Final = {"lr": {"loguniform": [1e-5, 1e-2]}}


@dataclass(frozen=True)
class Truth:
    """The true accuracies of settings, as shares; rates as powers of ten."""

    base: float = 0.92
    block5: float = 0.0
    """By how much block5 ends above head, each at its best rate."""
    flip: float = 0.0
    curvature: float = 0.0
    """Loss at one decade off the best rate."""
    best_rate: Mapping[str, float] = field(default_factory=lambda: {"head": -3.5, "block5": -3.5})
    behind: Mapping[str, float] = field(default_factory=lambda: {"head": 0.1, "block5": 0.1})
    """Deficit before the first epoch."""
    epochs: Mapping[str, float] = field(default_factory=lambda: {"head": 1.5, "block5": 1.5})
    """Epochs in which the deficit falls by a factor of e."""
    seed: Mapping[str, float] = field(default_factory=lambda: {"head": 0.0045, "block5": 0.0045})
    """Standard deviation over seeds."""
    wobble: float = 0.003
    collapse_above: float = 0.005

    def end(self, settings: TrialConfig) -> float:
        """The share that is right after very many epochs, averaged over seeds."""
        off = math.log10(settings.lr) - self.best_rate[settings.strategy]
        return (
            self.base
            + self.block5 * (settings.strategy == "block5")
            + self.flip * (settings.augmentation == "flip")
            - self.curvature * off**2
        )


@dataclass(frozen=True)
class Setup:
    """A search of a space."""

    truth: Truth = Truth()
    method: str = "grid"
    trial: Mapping[str, Any] = field(default_factory=lambda: LISTED)
    trials: int | None = None
    images: int = 3000
    asha: tuple[int, int] | None = None
    """Grace period and reduction factor."""

    def config(self, seed: int) -> SweepConfig:
        """The sweep's configuration."""
        space = {"strategy": ["head", "block5"], "augmentation": ["none", "flip"], "epochs": EPOCHS}
        asha = self.asha and dict(zip(("grace_period", "reduction_factor"), self.asha, strict=True))
        return SweepConfig.model_validate(
            {
                "name": "conclusions",
                "data": {"images": "images", "table": "table.csv", "target": "Smiling"},
                "trial": {**space, **self.trial},
                "search": {"method": self.method, "trials": self.trials, "seed": seed},
                "asha": asha or "off",
            }
        )


class Images:
    """Which images each trial gets right: what is hard for one trial is hard for the others."""

    def __init__(self, draw: np.random.Generator, images: int) -> None:
        self.draw, self.images = draw, images
        self.common = self._part(IMAGE)
        self.strategies: dict[str, Any] = {}

    def _part(self, variance: float, *shape: int) -> Any:
        return self.draw.standard_normal((*shape, self.images), np.float32) * variance**0.5

    def right(self, strategy: str, shares: Any) -> Any:
        """(epochs, images) bool, whose means are `shares` (epochs,), apart from chance."""
        if strategy not in self.strategies:
            self.strategies[strategy] = self._part(IN_STRATEGY)
        hard = self.common + self.strategies[strategy] + self._part(IN_TRIAL)
        hard = hard + self._part(IN_EPOCH, len(shares))
        return hard < ndtri(shares).astype(np.float32)[:, None]


@dataclass
class Trained:
    """A trial with all its epochs, and how many of them were run."""

    settings: TrialConfig
    right: Any
    scores: Any
    collapses: bool
    epochs: int = 0
    status: Status = Status.RUNNING
    stands_for: float = 1.0

    def curve(self) -> LearningCurve:
        """As the analysis sees it."""
        scores = self.scores[: self.epochs]
        areas = np.full(self.epochs, 0.5) if self.collapses else (scores + 1) / 2
        return LearningCurve(self.settings.effective(), self.status, scores, areas, self.stands_for)


@dataclass(frozen=True)
class Search:
    """A completed search."""

    config: SweepConfig
    trials: Sequence[Trained]
    images: int
    moment: Moment

    def curves(self) -> list[LearningCurve]:
        return [trial.curve() for trial in self.trials]

    def mattered(self, with_images: bool = True) -> Mattered:
        """What the project concludes from it."""
        curves, moment = self.curves(), self.moment
        rights = [t.right[c.best(moment.epoch)] for t, c in zip(self.trials, curves, strict=True)]
        dimensions, half = self.config.space.dimensions, self.images // 2
        return what_mattered(
            curves, rights if with_images else None, dimensions, moment, chance_area(half, half)
        )

    def pruned(self) -> dict[str, Trained]:
        """By trial."""
        return {t.settings.trial_id: t for t in self.trials if t.status is Status.PRUNED}

    def audited(self, every: bool = False) -> "Search":
        """At the end of training, with as many pruned trials audited as are asked for, or with `every` one."""
        there = self.pruned()
        strategies: dict[str, str] = {t: trial.settings.strategy for t, trial in there.items()}
        arms = Counter(strategies.values())
        count = len(there) if every else wanted(arms, {})
        drawn = draw_audits(strategies, (), count, self.config.search.seed)
        told = Audited(arms, arms, Counter(strategies[trial_id] for trial_id in drawn))
        assert told.is_enough or not there
        ends = [
            replace(
                there[trial_id],
                epochs=EPOCHS,
                status=Status.COLLAPSED if there[trial_id].collapses else Status.FINISHED,
                stands_for=told.stands_for(strategies[trial_id]),
            )
            for trial_id in drawn
        ]
        others = [trial for trial in self.trials if trial.status is not Status.PRUNED]
        return replace(self, trials=[*others, *ends], moment=Moment(EPOCHS, EPOCHS))


def train(
    draw: np.random.Generator, settings: TrialConfig, truth: Truth, images: Images
) -> Trained:
    """One trial to its end."""
    behind, pace = truth.behind[settings.strategy], truth.epochs[settings.strategy]
    epochs = np.arange(1, EPOCHS + 1)
    shares = (
        truth.end(settings)
        + draw.normal(0, truth.seed[settings.strategy])
        - behind * np.exp(-epochs / pace)
    )
    collapses = settings.lr > truth.collapse_above
    shares = (
        np.full(EPOCHS, COLLAPSED) if collapses else shares + draw.normal(0, truth.wobble, EPOCHS)
    )
    right = images.right(settings.strategy, np.clip(shares, 0.5, 0.995))
    return Trained(settings, right, right.mean(axis=1), collapses)


def search(setup: Setup, seed: int) -> Search:
    """A whole search: settings as proposed, SLOTS at a time, stopped by ASHA if it is on."""
    draw = np.random.default_rng(seed)
    config, images = setup.config(seed), Images(draw, setup.images)
    wanted, trials, active = config.trials, list[Trained](), list[int]()
    rungs = Rungs(
        config.asha.rungs(EPOCHS) if config.asha else [], setup.asha[1] if setup.asha else 2
    )
    propose = proposer(config, draw)
    while True:
        while len(active) < SLOTS and len(trials) < wanted:
            trials.append(train(draw, propose(trials), setup.truth, images))
            active.append(len(trials) - 1)
        if not active:
            rungs_of = config.asha.rungs(EPOCHS) if config.asha else []
            return Search(config, trials, setup.images, moment_of(rungs_of, EPOCHS))
        place = int(draw.choice(active))
        step(trials[place], rungs)
        if trials[place].status is not Status.RUNNING:
            active.remove(place)


def proposer(
    config: SweepConfig, draw: np.random.Generator
) -> Callable[[Sequence[Trained]], TrialConfig]:
    """Proposes the next settings after these trials. A grid is listed once here; a search lists it for every trial."""
    if config.search.method == "grid":
        points = config.space.points()
        order = draw.permutation(len(points))
        return lambda trials: config.space.settings(points[order[len(trials)]])
    proposals = Proposals(config)

    def propose(trials: Sequence[Trained]) -> TrialConfig:
        proposed = proposals.next(recorded(trials))
        assert proposed is not None
        return proposed[1]

    return propose


def recorded(trials: Sequence[Trained]) -> list[Recorded]:
    """As the search sees them."""
    return [
        Recorded(
            t.settings, n, t.status, tuple(np.maximum.accumulate(t.scores[: t.epochs]).tolist())
        )
        for n, t in enumerate(trials)
    ]


def step(trial: Trained, rungs: Rungs) -> None:
    """Run one more epoch, and apply what follows from it."""
    trial.epochs += 1
    if trial.collapses and trial.epochs >= 2:
        trial.status = Status.COLLAPSED
        rungs.forget(trial.settings.trial_id)
        return
    best = float(trial.scores[: trial.epochs].max())
    decision = rungs.decide(trial.settings.trial_id, trial.epochs, best)
    if decision is not None:
        rungs.record(decision)
        if decision.verdict == "stop":
            trial.status = Status.PRUNED
    elif trial.epochs == EPOCHS:
        trial.status = Status.FINISHED


def claims(found: Mattered) -> list[str]:
    """Names of the settings for which a difference is claimed."""
    return [
        *(effect.name for effect in found.effects if effect.verdict is Verdict.BETTER),
        *(trend.name for trend in found.trends if trend.is_claimed),
        *(["strategy with lr"] if found.together is not None and found.together.is_claimed else []),
    ]


@dataclass(frozen=True)
class Rate:
    """How often something was concluded, against how often it should be."""

    name: str
    runs: int
    times: int
    at_least: float = 0.0
    at_most: float = 1.0

    @property
    def share(self) -> float:
        return self.times / self.runs

    @property
    def holds(self) -> bool:
        return self.at_least <= self.share <= self.at_most

    def said(self) -> str:
        ends = wilson(self.times, self.runs)
        goal = f"at least {self.at_least:.0%}" if self.at_least else f"at most {self.at_most:.0%}"
        goal = "no goal" if self.at_least == 0 and self.at_most == 1 else goal
        return (
            f"{self.name:<78} {self.share:7.1%} of {self.runs} ({ends.low:.1%} to {ends.high:.1%}); "
            f"{goal}{'' if self.holds else '  NOT REACHED'}"
        )


@dataclass(frozen=True)
class Mean:
    """A figure averaged over runs."""

    name: str
    runs: int
    mean: float
    error: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def holds(self) -> bool:
        return self.low <= self.mean <= self.high

    def said(self) -> str:
        return (
            f"{self.name:<78} {self.mean:7.2f} (standard error {self.error:.2f}, n = {self.runs}); "
            f"{self.low:g} to {self.high:g}{'' if self.holds else '  NOT REACHED'}"
        )


Found = Rate | Mean


def mean_of(name: str, values: Sequence[float], low: float, high: float) -> Mean:
    """The mean, with its standard error."""
    found = np.asarray(values)
    error = float(found.std(ddof=1) / len(found) ** 0.5)
    return Mean(name, len(found), float(found.mean()), error, low, high)


def lead(found: Mattered) -> tuple[Effect, float, float, float] | None:
    """The lead of block5 over head: effect, lead and interval; None if they can't be compared."""
    effect = next((e for e in found.effects if e.name == "strategy"), None)
    if effect is None:
        return None
    if effect.first == "block5":
        return effect, effect.difference, effect.low, effect.high
    return effect, -effect.difference, -effect.high, -effect.low


RANDOM: Final[dict[str, Any]] = {"method": "random", "trial": RANGE, "trials": 24}
ONE_POINT: Final = Truth(block5=0.01)
SLOW: Final = Truth(
    block5=0.01, behind={"head": 0.1, "block5": 0.2}, epochs={"head": 1.5, "block5": 2.5}
)
OVERTAKING: Final = Truth(block5=0.01, behind={"head": 0.1, "block5": 0.25})
UNEVEN: Final = replace(OVERTAKING, seed={"head": 0.0045, "block5": 0.009})
ADDITIVE: Final = Truth(block5=0.01, flip=0.005, curvature=0.006)
CROSSED: Final = Truth(best_rate={"head": -3.0, "block5": -4.0}, curvature=0.02)


def equal(seeds: range) -> Iterator[Found]:
    """Settings that are equally good: is anything claimed, and does the interval contain 0?"""
    for said, how in (
        ("grid 12 × 2", {}),
        ("random 24", RANDOM),
        ("TPE 24", {**RANDOM, "method": "tpe"}),
    ):
        for images in (200, 3000):
            setup = Setup(**how, images=images)
            found = [search(setup, seed).mattered() for seed in seeds]
            what, most = f"equal, {said}, {images} images", 0.10 if "TPE" in said else 0.07
            yield Rate(
                f"{what}: any claim", len(seeds), sum(map(bool, map(claims, found))), at_most=most
            )
            yield covered(f"{what}: the interval holds the truth", found, 0.0)


def covered(name: str, found: Sequence[Mattered], truth: float) -> Rate:
    """Coverage over those searches in which strategies were compared."""
    leads = [one for one in map(lead, found) if one is not None]
    return Rate(
        name, len(leads), sum(low <= truth <= high for *_, low, high in leads), at_least=0.92
    )


def one_point(seeds: range) -> Iterator[Found]:
    """block5 is one point better, a grid without ASHA."""
    for images, least, most in ((3000, 0.75, 1.0), (200, 0.0, 0.25)):
        setup = Setup(ONE_POINT, images=images)
        found = [search(setup, seed).mattered() for seed in seeds]
        what = f"+1 point, grid 12 × 2, {images} images"
        claimed = sum("strategy" in claims(one) for one in found)
        yield Rate(f"{what}: claimed", len(seeds), claimed, least, most)
        yield covered(f"{what}: the interval holds the truth", found, 0.01)
        seen = [100 * one[0].visible for one in map(lead, found) if one is not None]
        low, high = (0.8, 1.2) if images == 3000 else (2.2, 3.0)
        yield mean_of(f"{what}: points that it could have seen", seen, low, high)


def visible(seeds: range) -> Iterator[Found]:
    """A difference just as large as is said to be visible.

    The best of eight epochs is partly luck, and the less so the higher the accuracy: on 200 images the compared leads
    are smaller than the true one by 0.2 points.
    """
    at = {200: 0.0325, 3000: 0.0102}
    for images, difference in at.items():
        setup = Setup(Truth(block5=difference), images=images)
        found = [search(setup, seed).mattered() for seed in seeds]
        leads = [one for one in map(lead, found) if one is not None]
        what = f"+{100 * difference:.2f} points, what {images} images could have seen"
        short = [100 * (one[1] - one[0].visible) for one in leads]
        yield mean_of(f"{what}: points by which the lead is larger", short, -0.15, 0.15)
        claimed = sum("strategy" in claims(one) for one in found)
        yield Rate(f"{what}: claimed", len(seeds), claimed, at_least=0.75)


def slow(seeds: range) -> Iterator[Found]:
    """block5 learns later and ends one point higher (0.2 points after eight epochs); ASHA 2/2."""
    for said, how in (("grid 12 × 2", {}), ("random 24", RANDOM)):
        setup = Setup(SLOW, asha=(2, 2), **how)
        found = [search(setup, seed).mattered() for seed in seeds]
        leads = [lead(one) for one in found]
        early = sum(
            one is not None and one[0].verdict is Verdict.BETTER and one[1] < 0 for one in leads
        )
        said_of_end = sum(one.moment.epoch != 2 and bool(claims(one)) for one in found)
        open_end = sum("is not known" in " ".join(Saying(METRIC, one).sentences()) for one in found)
        what = f"slow block5, ASHA 2/2, {said}"
        yield Rate(f"{what}: a claim on the end", len(seeds), said_of_end, at_most=0.0)
        yield Rate(f"{what}: head is ahead after 2 epochs", len(seeds), early, at_least=0.95)
        yield Rate(f"{what}: that the end isn't known", len(seeds), open_end, at_least=0.95)


def ends(seeds: range) -> Iterator[Found]:
    """ASHA 2/2, then six audits of each strategy: conclusions about the end of training, which few trials reach."""
    random60 = {**RANDOM, "trials": 60}
    for said, how in (
        ("grid 12 × 2", {}),
        ("random 24", RANDOM),
        ("TPE 24", {**RANDOM, "method": "tpe"}),
        ("random 60", random60),
    ):
        for images in (200, 3000):
            setup = Setup(asha=(2, 2), images=images, **how)
            what = f"audits, {said}, {images} images"
            found = [search(setup, seed).audited().mattered() for seed in seeds]
            claimed = sum(bool(claims(one)) for one in found)
            most = 0.10 if "TPE" in said else 0.07
            yield Rate(f"{what}, equal: any claim", len(seeds), claimed, at_most=most)
            yield covered(f"{what}, equal: the interval holds the truth", found, 0.0)
            yield from overtaken(what, replace(setup, truth=OVERTAKING), seeds)
    uneven = Setup(UNEVEN, asha=(2, 2), **random60)
    yield from overtaken("audits, random 60, block5 twice as uneven", uneven, seeds)


def overtaken(what: str, setup: Setup, seeds: range) -> Iterator[Found]:
    """block5 is 3.0 points behind at the first rung and 0.9 points ahead at the end."""
    searches = [search(setup, seed) for seed in seeds]
    found = [one.audited().mattered() for one in searches]
    every = [one.audited(every=True).mattered() for one in searches]
    truth = float(np.mean([one[1] for one in map(lead, every) if one is not None]))
    for name, those in (("", found), (" (all audited)", every)):
        claimed = [
            one[1] > 0
            for one in map(lead, those)
            if one is not None and one[0].verdict is Verdict.BETTER
        ]
        wrong, right = claimed.count(False), claimed.count(True)
        yield Rate(f"{what}, slow block5{name}: head is ahead", len(seeds), wrong, at_most=0.01)
        yield Rate(f"{what}, slow block5{name}: block5 is ahead", len(seeds), right)
        yield covered(f"{what}, slow block5{name}: the interval holds the truth", those, truth)


def collapse(seeds: range) -> Iterator[Found]:
    """The same search with one more rate, at which every trial collapses; block5 is three points better."""
    truth = Truth(block5=0.03)
    with_it = {**LISTED, "lr": [1e-4, 3e-4, 1e-3, 0.3]}
    moved, claimed, counted = [], 0, 0
    for seed in seeds:
        one = search(Setup(truth, trial=with_it), seed)
        found, same = one.mattered(), without_collapsed(one).mattered()
        first, second = lead(found), lead(same)
        assert first is not None and second is not None
        moved.append(100 * abs(first[1] - second[1]))
        claimed += "strategy" in claims(found)
        counted += any(c.value == 0.3 and c.broken == c.trials for c in found.counts)
    yield mean_of("a collapsing rate more: points by which the estimate moves", moved, 0, 0.1)
    yield Rate("a collapsing rate more, +3 points: claimed", len(seeds), claimed, at_least=0.95)
    yield Rate("a collapsing rate more: counted as such", len(seeds), counted, at_least=1.0)


def without_collapsed(one: Search) -> Search:
    """The search as if the rate had not been asked for."""
    return replace(one, trials=[trial for trial in one.trials if not trial.collapses])


def together(seeds: range) -> Iterator[Found]:
    """Is it found whether the best rate depends on the strategy? Once it does not, once it does."""
    asha = {"asha": (2, 2)}
    for said, how in (
        ("grid 12 × 2", {}),
        ("random 24", RANDOM),
        ("random 24, ASHA 2/2", {**RANDOM, **asha}),
    ):
        for name, truth, low, high in (
            ("additive", ADDITIVE, 0.0, 0.05),
            ("crossed", CROSSED, 0.75, 1.0),
        ):
            setup = Setup(truth, **how)
            found = [search(setup, seed).mattered() for seed in seeds]
            claimed = sum("strategy with lr" in claims(one) for one in found)
            yield Rate(f"{name}, {said}: an interaction is claimed", len(seeds), claimed, low, high)
            if name == "additive" and "ASHA" not in said:
                yield covered(f"{name}, {said}: the interval holds the truth", found, truth.block5)


def flat_curves(seeds: range) -> Iterator[Found]:
    """Curves that are flat in their second half, and curves that rise by half a point per epoch."""
    for name, rise, low, high in (("flat", 0.0, 0.0, 0.05), ("rising", 0.005, 0.9, 1.0)):
        seen = 0
        for seed in seeds:
            draw = np.random.default_rng(seed)
            curves = 0.9 + rise * np.arange(EPOCHS) + draw.normal(0, 0.004, (6, EPOCHS))
            found = rise_of(list(curves))
            seen += found is not None and found.is_seen
        yield Rate(f"six {name} curves: that more epochs may do more", len(seeds), seen, low, high)


PARTS: Final[dict[str, Callable[[range], Iterator[Found]]]] = {
    part.__name__: part
    for part in (equal, one_point, visible, slow, ends, collapse, together, flat_curves)
}


def main() -> None:
    """Print and write all results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    written = []
    for name in asked.only or PARTS:
        begun = time.perf_counter()
        for found in PARTS[name](range(asked.first, asked.first + asked.runs)):
            print(found.said(), flush=True)
            written.append({"part": name, "holds": found.holds, **asdict(found)})
        print(f"{name}: {time.perf_counter() - begun:.0f} s\n", flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
