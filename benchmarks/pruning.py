"""A simulation of what ASHA loses if a strategy learns slowly and ends higher, and of what exceptions cost.

python benchmarks/pruning.py [--runs 200] [--images 3000] [--only "crossing at 4"] [--grace 2] [--reduction 2]
                             [--seed 0] [--out pruning.json]

Searches of 24 trials × 8 epochs with a known truth, four at a time; rungs are the project's own
(`sweep.search.asha.Rungs`). Validation images are drawn too: an image's difficulty is partly common to all models,
partly to those of one strategy, one trial or one epoch. Every rule meets the same trials. Regret is the highest
true accuracy of all trials, had none been pruned, each at its best epoch by validation, minus the winner's.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from scipy.special import ndtri

from analysis.findings.pruning import are_better
from analysis.statistics import mcnemar, wilson
from sweep.request.config import AshaConfig
from sweep.search.asha import Rungs, one_arm
from trainable.config import Strategy
from trainable.records.files import write_json

TRIALS: Final = 24
EPOCHS: Final = 8
SLOTS: Final = 4
ASHA: Final = AshaConfig(grace_period=2, reduction_factor=2)
MUCH: Final = 0.005
"""Regret above which a run has lost something: half a point."""
SEED_NOISE: Final = 0.0045
"""Standard deviation of a trained model's accuracy over seeds."""
WOBBLE: Final = 0.003
"""Standard deviation of its accuracy over epochs, around the curve."""
HARDNESS: Final = (0.86, 0.05, 0.05, 0.04)
"""Shares of the variance of an image's difficulty: common to all models, of a strategy, a trial, an epoch."""
COLLAPSED: Final = 0.575
COLLAPSES_ABOVE: Final = 10**-2.3
"""Learning rate."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rights = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Curve:
    """A strategy's true accuracy: `end` - `gap` exp(-epoch / 1.5), at its best learning rate."""

    end: float
    gap: float = 0.10

    def at(self, epochs: Floats) -> Floats:
        return self.end - self.gap * np.exp(-epochs / 1.5)


@dataclass(frozen=True)
class Situation:
    """The truth about the strategies."""

    curves: Mapping[str, Curve]
    curvature: float = 0.006
    """Loss per squared decade of the learning rate from 10^-3.5; with 0 all settings are equal and none collapses."""


STRATEGIES: Final = get_args(Strategy)
SITUATIONS: Final[Mapping[str, Situation]] = {
    "equal": Situation({"head": Curve(0.92), "block5": Curve(0.92)}, curvature=0.0),
    "rates matter": Situation({"head": Curve(0.92), "block5": Curve(0.92)}),
    "block5 better": Situation({"head": Curve(0.92), "block5": Curve(0.93)}),
    "crossing at 4": Situation({"head": Curve(0.92), "block5": Curve(0.93, 0.25)}),
    "crossing at 6": Situation({"head": Curve(0.92), "block5": Curve(0.93, 0.40)}),
    "slow and worse": Situation({"head": Curve(0.92), "block5": Curve(0.91, 0.40)}),
    "three, crossing": Situation(
        {"head": Curve(0.92), "block5": Curve(0.925, 0.25), "full": Curve(0.93, 0.40)}
    ),
    "five, rates matter": Situation(dict.fromkeys(STRATEGIES, Curve(0.92))),
    "five, block5 better": Situation(
        dict.fromkeys(STRATEGIES, Curve(0.92)) | {"block5": Curve(0.93)}
    ),
    "five, crossing": Situation(
        {
            "head": Curve(0.92),
            "block5": Curve(0.9225, 0.175),
            "block4": Curve(0.925, 0.25),
            "block3": Curve(0.9275, 0.325),
            "full": Curve(0.93, 0.40),
        }
    ),
}


@dataclass(frozen=True)
class Trials:
    """Trained models with all their epochs, as if none had been pruned."""

    strategies: tuple[str, ...]
    accuracy: Floats  # (trials, epochs), true
    right: Rights  # (trials, epochs, images)
    collapsed: Rights  # (trials,)

    @cached_property
    def validation(self) -> Floats:
        found: Floats = self.right.mean(axis=2)
        return found

    @cached_property
    def at_best(self) -> tuple[Floats, Rights]:
        """Each trial at its best epoch by validation: true accuracy, (trials,), and what is right, (trials, images)."""
        places, epochs = np.arange(len(self.strategies)), self.validation.argmax(axis=1)
        return self.accuracy[places, epochs], self.right[places, epochs]


def train(draw: np.random.Generator, situation: Situation, images: int) -> Trials:
    """24 trials of a random search."""
    names = tuple(situation.curves)
    strategies = tuple(names[draw.integers(len(names))] for _ in range(TRIALS))
    rates = draw.uniform(-5, -2, TRIALS)
    epochs = np.arange(1.0, EPOCHS + 1)
    accuracy = np.stack([situation.curves[strategy].at(epochs) for strategy in strategies])
    accuracy -= situation.curvature * ((rates + 3.5) ** 2)[:, None]
    accuracy += draw.normal(0, SEED_NOISE, (TRIALS, 1)) + draw.normal(0, WOBBLE, accuracy.shape)
    collapsed = (10.0**rates > COLLAPSES_ABOVE) & (situation.curvature > 0)
    accuracy[collapsed] = COLLAPSED
    accuracy = accuracy.clip(0.5, 0.995)
    return Trials(strategies, accuracy, _predict(draw, strategies, accuracy, images), collapsed)


def _predict(
    draw: np.random.Generator, strategies: Sequence[str], accuracy: Floats, images: int
) -> Rights:
    """An image is right if its difficulty for the model in this epoch is below what the accuracy allows."""
    of_all, of_strategy, of_trial, of_epoch = np.sqrt(HARDNESS).astype(np.float32)

    def hardness(*shape: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        return draw.standard_normal((*shape, images), dtype=np.float32)

    shared = of_all * hardness()
    by_strategy = {name: of_strategy * hardness() for name in sorted(set(strategies))}
    right = np.empty((*accuracy.shape, images), dtype=bool)
    for place, strategy in enumerate(strategies):
        hard = shared + by_strategy[strategy] + of_trial * hardness()
        limit = ndtri(accuracy[place]).astype(np.float32)[:, None]
        right[place] = hard + of_epoch * hardness(EPOCHS) < limit
    return right


# ---------------------------------------------------------------- searches


@dataclass(frozen=True)
class Rule:
    """Which trials continue."""

    prunes: bool = True
    grace_periods: int = 1
    """The multiple of the grace period to wait."""
    keeps_best: bool = False
    """The best trial so far of its strategy at a rung continues, whatever the cutoff."""
    apart: bool = False
    """Each strategy has its own rungs: `asha.rungs_of: strategy`."""
    finishes_best: bool = False
    """If a strategy has no finished trial, its best pruned one is run to the end after the search."""


RULES: Final[Mapping[str, Rule]] = {
    "no pruning": Rule(prunes=False),
    "ASHA": Rule(),
    "ASHA, best kept": Rule(keeps_best=True),
    "ASHA, rungs apart": Rule(apart=True),
    "ASHA, best finished": Rule(finishes_best=True),
    "ASHA, grace doubled": Rule(grace_periods=2),
}


@dataclass(frozen=True)
class Search:
    """What pruning left over."""

    epochs: tuple[int, ...]
    """Epochs of each trial."""
    finished: tuple[int, ...]
    """Places of the trials that ran to the end without collapsing."""

    def winner(self, trials: Trials) -> int:
        """The winner's place, by the best validation accuracy."""
        best = trials.validation.max(axis=1)
        return max(self.finished, key=lambda place: float(best[place]))


def search(
    draw: np.random.Generator, trials: Trials, rule: Rule, asha: AshaConfig = ASHA
) -> Search:
    """Four trials at a time, whose epochs end in a random order."""
    best = np.maximum.accumulate(trials.validation, axis=1)
    rungs = _rungs(rule, asha, trials.strategies)
    epochs, pruned, finished = [0] * TRIALS, [], []
    waiting, active = list(range(TRIALS)), list[int]()
    while waiting or active:
        while waiting and len(active) < SLOTS:
            active.append(waiting.pop(0))
        place = active[draw.integers(len(active))]
        epochs[place] += 1
        if trials.collapsed[place] and epochs[place] == 2:
            rungs.forget(str(place))
        elif _stops(rungs, place, epochs[place], best, trials.strategies, rule):
            pruned.append(place)
        elif epochs[place] == EPOCHS:
            finished.append(place)
        else:
            continue
        active.remove(place)
    if rule.finishes_best:
        for strategy in sorted(set(trials.strategies)):
            mine_ended = [p for p in finished if trials.strategies[p] == strategy]
            stopped = [p for p in pruned if trials.strategies[p] == strategy]
            if stopped and not mine_ended:
                place = max(stopped, key=lambda p: (epochs[p], best[p, epochs[p] - 1]))
                epochs[place] += EPOCHS  # run again from the start, like an audit
                finished.append(place)
    return Search(tuple(epochs), tuple(finished))


def _rungs(rule: Rule, asha: AshaConfig, strategies: Sequence[str]) -> Rungs:
    after = asha.model_copy(update={"grace_period": asha.grace_period * rule.grace_periods})
    return Rungs(
        after.rungs(EPOCHS) if rule.prunes else [],
        asha.reduction_factor,
        (lambda place: strategies[int(place)]) if rule.apart else one_arm,
    )


def _stops(
    rungs: Rungs, place: int, epoch: int, best: Floats, strategies: Sequence[str], rule: Rule
) -> bool:
    decision = rungs.decide(str(place), epoch, float(best[place, epoch - 1]))
    if decision is None:
        return False
    if rule.keeps_best:
        mine = [
            score
            for trial_id, score in rungs.recorded[epoch].items()
            if strategies[int(trial_id)] == strategies[place]
        ]
        if decision.score >= max(mine, default=decision.score):
            decision = replace(decision, verdict="go on")
    rungs.record(decision)
    return decision.verdict == "stop"


def regret_of(trials: Trials, found: Search) -> float:
    """How much better than the winner the best trial would be without pruning; true accuracies at best epochs."""
    true, _ = trials.at_best
    return float(true.max() - true[found.winner(trials)])


def looks_too_short(trials: Trials, found: Search) -> bool:
    """Does `analysis cost` say so after an audit of every pruned trial?"""
    best, (_, right) = found.winner(trials), trials.at_best
    audits = [
        place
        for place in range(TRIALS)
        if place not in found.finished and not trials.collapsed[place]
    ]
    leads = [max(0.0, float(right[place].mean() - right[best].mean())) for place in audits]
    p_values = [
        mcnemar(right[place], right[best]).p if lead > 0 else 1.0
        for place, lead in zip(audits, leads, strict=True)
    ]
    return any(are_better(leads, p_values))


# ---------------------------------------------------------------- many of them


def measure(
    situation: Situation, runs: int, images: int, seed: int, asha: AshaConfig = ASHA
) -> list[dict[str, Any]]:
    """One row per rule."""
    regrets: dict[str, list[float]] = {name: [] for name in RULES}
    epochs: dict[str, list[int]] = {name: [] for name in RULES}
    warned = 0
    for run in range(runs):
        draw = np.random.default_rng((seed, run))
        trials = train(draw, situation, images)
        for name, rule in RULES.items():
            found = search(np.random.default_rng((seed, run, 1)), trials, rule, asha)
            regrets[name].append(regret_of(trials, found))
            epochs[name].append(sum(found.epochs))
            warned += name == "ASHA" and looks_too_short(trials, found)
    return [
        {
            "rule": name,
            "epochs": float(np.mean(epochs[name])),
            "regret": float(np.mean(regrets[name])),
            **_share("regret_above", sum(regret > MUCH for regret in regrets[name]), runs),
            **(_share("too_short", warned, runs) if name == "ASHA" else {}),
        }
        for name in RULES
    ]


def _share(name: str, count: int, runs: int) -> dict[str, Any]:
    interval = wilson(count, runs)
    return {name: count / runs, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _line(row: Mapping[str, Any]) -> str:
    def share(name: str) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{row[name]:6.1%} ({low:.1%} to {high:.1%})"

    said = (
        f"  {row['rule']:<20} {row['epochs']:6.1f} epochs   regret {row['regret'] * 100:5.2f} points"
        f"   above 0.5: {share('regret_above')}"
    )
    return said + (f"   grace too short: {share('too_short')}" if "too_short" in row else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--grace", type=int, default=ASHA.grace_period)
    parser.add_argument("--reduction", type=int, default=ASHA.reduction_factor)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    asha, found = AshaConfig(grace_period=asked.grace, reduction_factor=asked.reduction), {}
    for name in asked.only:
        found[name] = measure(SITUATIONS[name], asked.runs, asked.images, asked.seed, asha)
        print(f"{name}, {asked.runs} runs, {asked.images} images", flush=True)
        for row in found[name]:
            print(_line(row), flush=True)
    if asked.out is not None:
        write_json(
            asked.out,
            {
                "runs": asked.runs,
                "images": asked.images,
                "asha": asha.model_dump(mode="json"),
                "situations": found,
            },
        )


if __name__ == "__main__":
    main()
