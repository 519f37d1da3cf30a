"""Are the conclusions true? Searches with a known truth, and what the project's own functions say of them.

Trials differ by their settings, by seed (0.45 points), by epoch (0.3 points) and by what each of them makes of the
validation images, which all share. ASHA decides by `sweep.asha`, settings come from `sweep.proposals`. Prints how often
each thing was said, with Wilson's interval, and writes JSON.

    python benchmarks/conclusions.py [--runs 400] [--only NAME] [--out conclusions.json]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from analysis.effects.learning import Curve, Moment, moment_of
from analysis.effects.verdicts import Mattered, Verdict, what_mattered
from sweep.asha import Rungs
from sweep.config import SweepConfig
from sweep.proposals import Proposals
from sweep.study import Recorded
from trainable.config import TrialConfig
from trainable.metric import chance_area
from trainable.rows import Status

EPOCHS: Final = 8
SLOTS: Final = 4
IMAGE, IN_STRATEGY, IN_TRIAL, IN_EPOCH = 0.86, 0.05, 0.05, 0.04
"""Parts of the variance of what decides whether an image is right: what trials have in common is most of it."""
COLLAPSED: Final = 0.575
LISTED: Final = {"lr": [1e-4, 3e-4, 1e-3], "seed": [1, 2]}
RANGE: Final = {"lr": {"loguniform": [1e-5, 1e-2]}}


@dataclass(frozen=True)
class Truth:
    """What settings come to, as shares; rates as powers of ten."""

    base: float = 0.92
    block5: float = 0.0
    """By how much block5 ends above head, each at its best rate."""
    flip: float = 0.0
    curvature: float = 0.0
    """Lost by a decade off the best rate."""
    best_rate: Mapping[str, float] = field(default_factory=lambda: {"head": -3.5, "block5": -3.5})
    behind: Mapping[str, float] = field(default_factory=lambda: {"head": 0.1, "block5": 0.1})
    """Before the first epoch."""
    epochs: Mapping[str, float] = field(default_factory=lambda: {"head": 1.5, "block5": 1.5})
    """In which what is behind falls by a factor of e."""
    seed: float = 0.0045
    wobble: float = 0.003
    collapse_above: float = 0.005

    def end(self, settings: TrialConfig) -> float:
        """The share that is right after very many epochs, in the mean of seeds."""
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
        """The sweep that asks for it."""
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
        """(epochs, images) bool, whose means are `shares` (epochs,) but for chance."""
        if strategy not in self.strategies:
            self.strategies[strategy] = self._part(IN_STRATEGY)
        hard = self.common + self.strategies[strategy] + self._part(IN_TRIAL)
        hard = hard + self._part(IN_EPOCH, len(shares))
        return hard < ndtri(shares).astype(np.float32)[:, None]


@dataclass
class Trained:
    """A trial, all of its epochs, and how many of them were run."""

    settings: TrialConfig
    right: Any
    scores: Any
    collapses: bool
    epochs: int = 0
    status: Status = Status.RUNNING

    def curve(self) -> Curve:
        """As the analysis sees it."""
        scores = self.scores[: self.epochs]
        areas = np.full(self.epochs, 0.5) if self.collapses else (scores + 1) / 2
        return Curve(self.settings.effective(), self.status, scores, areas)


@dataclass(frozen=True)
class Search:
    """A search that ran."""

    config: SweepConfig
    trials: Sequence[Trained]
    images: int

    @property
    def moment(self) -> Moment:
        asha = self.config.asha
        return moment_of(asha.rungs(EPOCHS) if asha else [], EPOCHS)

    def curves(self) -> list[Curve]:
        return [trial.curve() for trial in self.trials]

    def mattered(self, with_images: bool = True) -> Mattered:
        """What the project says of it."""
        curves, moment = self.curves(), self.moment
        rights = [t.right[c.best(moment.epoch)] for t, c in zip(self.trials, curves, strict=True)]
        dimensions, half = self.config.space.dimensions, self.images // 2
        return what_mattered(
            curves, rights if with_images else None, dimensions, moment, chance_area(half, half)
        )


def train(
    draw: np.random.Generator, settings: TrialConfig, truth: Truth, images: Images
) -> Trained:
    """One trial to its end."""
    behind, pace = truth.behind[settings.strategy], truth.epochs[settings.strategy]
    epochs = np.arange(1, EPOCHS + 1)
    shares = truth.end(settings) + draw.normal(0, truth.seed) - behind * np.exp(-epochs / pace)
    collapses = settings.lr > truth.collapse_above
    shares = (
        np.full(EPOCHS, COLLAPSED) if collapses else shares + draw.normal(0, truth.wobble, EPOCHS)
    )
    right = images.right(settings.strategy, np.clip(shares, 0.5, 0.995))
    return Trained(settings, right, right.mean(axis=1), collapses)


def search(setup: Setup, seed: int) -> Search:
    """A whole search: settings as they are proposed, SLOTS at a time, stopped by ASHA where it is on."""
    draw = np.random.default_rng(seed)
    config, images = setup.config(seed), Images(draw, setup.images)
    proposals, trials, active = Proposals(config), [], []  # type: ignore[var-annotated]
    rungs = Rungs(
        config.asha.rungs(EPOCHS) if config.asha else [], setup.asha[1] if setup.asha else 2
    )
    wanted = config.trials
    while True:
        while len(active) < SLOTS and len(trials) < wanted:
            proposed = proposals.next(recorded(trials))
            assert proposed is not None
            trials.append(train(draw, proposed[1], setup.truth, images))
            active.append(len(trials) - 1)
        if not active:
            return Search(config, trials, setup.images)
        place = int(draw.choice(active))
        step(trials[place], rungs)
        if trials[place].status is not Status.RUNNING:
            active.remove(place)


def recorded(trials: Sequence[Trained]) -> list[Recorded]:
    """As the search sees them."""
    return [
        Recorded(
            t.settings, n, t.status, tuple(np.maximum.accumulate(t.scores[: t.epochs]).tolist())
        )
        for n, t in enumerate(trials)
    ]


def step(trial: Trained, rungs: Rungs) -> None:
    """One more epoch, and what follows."""
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
    """Names of the settings of which a difference is claimed."""
    return [
        *(effect.name for effect in found.effects if effect.verdict is Verdict.BETTER),
        *(trend.name for trend in found.trends if trend.is_claimed),
        *(["strategy with lr"] if found.together is not None and found.together.is_claimed else []),
    ]
