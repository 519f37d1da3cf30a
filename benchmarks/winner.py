"""Are the statements about the winner true? Simulates models with a known accuracy, and asks the analysis about them.

Trials differ by seed (0.45 points), by epoch (0.3 points), and by how each handles the validation images, which all
share. For the best of a search: how much its printed value is too high, what `excess_of_best` says, and how often
intervals contain its true accuracy. For replicated equal settings: how often one of them is called better.

    python benchmarks/winner.py [--runs 200] [--out winner.json]
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from scipy.special import ndtri

from analysis.findings.excess import Models, excess_of_best
from analysis.findings.replicates import against_first
from analysis.levels import ALPHA
from analysis.statistics import holm, welch, wilson
from trainable.metric import Metric

IMAGE, IN_STRATEGY, IN_TRIAL, IN_EPOCH = 0.86, 0.05, 0.05, 0.04
"""Shares of the variance that makes an image hard: most of it is common to all trials."""
SEED, WOBBLE = 0.0045, 0.003
Floats = np.ndarray[Any, np.dtype[np.float64]]


def shares(draw: np.random.Generator, ends: Sequence[float] | Floats, epochs: int) -> Floats:
    """(trials, epochs): true accuracies of trials that end near `ends` and start 10 points lower."""
    end = np.asarray(ends) + draw.normal(0, SEED, len(ends))
    behind = 0.1 * np.exp(-np.arange(1, epochs + 1) / 1.5)
    found = end[:, None] - behind + draw.normal(0, WOBBLE, (len(ends), epochs))
    return np.clip(found, 0.5, 0.995)


def right(
    draw: np.random.Generator, true: Floats, strategies: Sequence[int], images: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(trials, epochs, images): which images each epoch of each trial gets right."""

    def part(variance: float, *shape: int) -> Any:
        return draw.standard_normal((*shape, images), np.float32) * np.float32(variance**0.5)

    common, own = part(IMAGE), {each: part(IN_STRATEGY) for each in sorted(set(strategies))}
    found = np.empty((*true.shape, images), np.bool_)
    for n, strategy in enumerate(strategies):
        hard = common + own[strategy] + part(IN_TRIAL) + part(IN_EPOCH, true.shape[1])
        found[n] = hard < ndtri(true[n]).astype(np.float32)[:, None]
    return found


# ---------------------------------------------------------------- the best of a search


@dataclass(frozen=True)
class Best:
    """Means over searches, in points; how often intervals contain the winner's true accuracy."""

    name: str
    images: int
    runs: int
    real: float
    said: float
    held_by_wilson: float
    held: float


def best_of_searches(
    name: str,
    ends: Callable[[np.random.Generator], Sequence[float]],
    images: int,
    runs: int,
    stopped: bool = False,
    epochs: int = 10,
) -> Best:
    """Searches whose trials end at `ends`; with `stopped`, the worse half runs only two epochs."""
    found = []
    for seed in range(runs):
        draw = np.random.default_rng(seed)
        true = shares(draw, ends(draw), epochs)
        strategies = [n % 2 for n in range(len(true))]
        bits = right(draw, true, strategies, images)
        values = bits.mean(axis=2)
        ran = np.ones(true.shape, np.bool_)
        if stopped:
            second = values[:, :2].max(axis=1)
            ran[second < np.median(second), 2:] = False
        finished = ran & ran[:, -1:]
        winner = np.unravel_index(np.where(finished, values, -1).argmax(), values.shape)
        models = Models(bits[ran], np.nonzero(ran)[0])
        printed = float(values[winner])
        said = excess_of_best(models, printed)
        plain = wilson(round(printed * images), images)
        truth = float(true[winner])
        found.append(
            (
                printed - truth,
                said.excess,
                plain.low <= truth <= plain.high,
                said.interval.low <= truth <= said.interval.high,
            )
        )
    real, excess, wilsons, held = np.mean(found, axis=0)
    return Best(name, images, runs, real * 100, excess * 100, wilsons, held)


# ---------------------------------------------------------------- replicated settings


@dataclass(frozen=True)
class Again:
    """How often a setting is called better, and how often intervals contain the first one's true lead."""

    name: str
    images: int
    runs: int
    claimed_by_trials_alone: float
    """By Welch's test, with Holm's correction over all but the best."""
    claimed: float
    meaningful: float
    """How often any is called meaningful (Bouthillier et al. 2021)."""
    held: float


def replicated(
    name: str, ends: Sequence[float], seeds: int, images: int, runs: int, epochs: int = 8
) -> Again:
    """Settings that end at `ends`, each with its own strategy, trained `seeds` times."""
    found = []
    for seed in range(runs):
        draw = np.random.default_rng(seed)
        setting = np.repeat(np.arange(len(ends)), seeds)
        true = shares(draw, np.asarray(ends)[setting], epochs)
        bits = right(draw, true, setting.tolist(), images)
        best = bits.mean(axis=2).argmax(axis=1)
        chosen = bits[np.arange(len(setting)), best].astype(np.float64)
        order = sorted(range(len(ends)), key=lambda n: -chosen[setting == n].mean())
        values = [chosen[setting == n] for n in order]
        scores = [list(each.mean(axis=1)) for each in values]
        versus = against_first(Metric.VAL_ACCURACY, values, scores)
        alone = holm([welch(scores[0], each).p for each in scores[1:]])
        held = [
            v.difference.interval.low <= ends[order[0]] - ends[n] <= v.difference.interval.high
            for v, n in zip(versus, order[1:], strict=True)
        ]
        found.append(
            (
                min(alone) < ALPHA,
                min(v.p_holm for v in versus) < ALPHA,
                any(v.is_meaningful for v in versus),
                float(np.mean(held)),
            )
        )
    return Again(name, images, runs, *map(float, np.mean(found, axis=0)))


# ---------------------------------------------------------------- all of it


def equal(trials: int) -> Callable[[np.random.Generator], Sequence[float]]:
    return lambda draw: [0.92] * trials


def wide(draw: np.random.Generator) -> Sequence[float]:
    """24 rates over three decades as drawn by random search; each decade off costs 0.6 points."""
    return list(0.92 - 0.006 * draw.uniform(-1.5, 1.5, 24) ** 2)


SEARCHES: Final = (
    ("equal, 24 × 10", equal(24), False),
    ("equal, 24 × 10, half stopped after 2", equal(24), True),
    ("random over three decades, 24 × 10", wide, False),
    ("equal, 3 × 10", equal(3), False),
)


def main(
    runs: Annotated[int, typer.Option()] = 200, out: Annotated[Path | None, typer.Option()] = None
) -> None:
    """Print every figure."""
    found: list[Best | Again] = []
    for images in (200, 1_000, 3_000):
        for name, ends, stopped in SEARCHES:
            best = best_of_searches(name, ends, images, runs, stopped)
            found.append(best)
            print(
                f"{name}, {images:,} images: too high by {best.real:.2f} points, said {best.said:.2f}; held by "
                f"Wilson {best.held_by_wilson:.1%}, by the corrected interval {best.held:.1%}"
            )
        for seeds in (3, 5):
            for name, levels in (
                ("3 equal settings", [0.92] * 3),
                ("one 1 point better", [0.93, 0.92]),
            ):
                again = replicated(name, levels, seeds, images, runs)
                found.append(again)
                print(
                    f"{name}, {seeds} seeds, {images:,} images: called better by trials alone "
                    f"{again.claimed_by_trials_alone:.1%}, with images {again.claimed:.1%}, meaningful "
                    f"{again.meaningful:.1%}; difference held {again.held:.1%}"
                )
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
