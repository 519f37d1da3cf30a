"""Which setting comes next: a pure function of the configuration and the records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import qmc

from sweep.request.config import SweepConfig
from sweep.request.space import LARGEST_GRID, Point, Value
from sweep.search.study import Recorded, mix, recorded, sampler_for, suggest
from trainable.config import TrialConfig
from trainable.network.model import CUTS
from trainable.records.run_folder import RunFolder

DUPLICATES_IN_A_ROW = 50
"""After this many a sampler is stuck, and an untried point is drawn instead; assumed."""
DRAWS = 1_000  # random draws for an untried point of a space that can't be listed; assumed


def nothing_left(run: RunFolder, config: SweepConfig) -> bool:
    """Has everything that was asked for ended?"""
    found = [recorded(record, config.metric) for record in run.trials()]
    if not all(trial.is_over(config.epochs) for trial in found):
        return False
    return Proposals(config).next([trial for trial in found if trial.origin == "search"]) is None


@dataclass(frozen=True)
class Proposals:
    """The suggestions of one search. With the same records, they are the same."""

    config: SweepConfig

    def next(self, trials: Sequence[Recorded]) -> tuple[int, TrialConfig] | None:
        """Number and settings of the next trial after `trials`; None when all were made or none is left."""
        number = max((trial.number for trial in trials), default=-1) + 1
        return self.numbered(number, {trial.trial_id: trial for trial in trials})

    def numbered(
        self, number: int, tried: Mapping[str, Recorded]
    ) -> tuple[int, TrialConfig] | None:
        """The same for a caller that knows: `number` follows the highest on record, `tried` are the trials by id.

        A duplicate costs nothing: the next number is tried. The cost does not grow with the number of trials, except
        for Optuna's samplers, which go through all of them.
        """
        if len(tried) >= self.config.asked_for(tried):
            return None
        if self.config.search.method == "grid":
            settings = next((s for s in self._grid if s.trial_id not in tried), None)
            return None if settings is None else (number, settings)
        for attempt in range(number, number + DUPLICATES_IN_A_ROW):
            settings = self._settings(self._propose(tried, attempt))
            if settings.trial_id not in tried:
                return attempt, settings
        return self._untried(tried, number + DUPLICATES_IN_A_ROW)

    def _settings(self, point: Point) -> TrialConfig:
        return self.config.space.settings(point)

    def _propose(self, tried: Mapping[str, Recorded], number: int) -> Point:
        """The point of suggestion `number` by the method; `search.first` comes first, with missing values filled in."""
        search, space = self.config.search, self.config.space
        first = search.first[number] if number < len(search.first) else {}
        given: dict[str, Value] = space.check(first)
        match search.method:
            case "random":
                return space.at(self._units(number), given)
            case "qmc":
                return space.at(self._sobol(number), given)
            case "grid":
                raise AssertionError("a grid is listed, not proposed")
            case method:  # mypy checks that it is one of Optuna's
                sampler = sampler_for(method, search.seed, number)
                return suggest(space, self.config.metric, list(tried.values()), sampler, given)

    def _units(self, number: int) -> list[float]:
        draws = np.random.default_rng(mix(self.config.search.seed, number))
        units: list[float] = draws.random(len(self.config.space.dimensions)).tolist()
        return units

    def _sobol(self, number: int) -> list[float]:
        """Point `number` of one scrambled Sobol sequence over all dimensions, active or not."""
        dimensions = len(self.config.space.dimensions)
        if not dimensions:
            return []
        sequence = qmc.Sobol(dimensions, scramble=True, rng=self.config.search.seed)
        if number:
            sequence.fast_forward(number)
        units: list[float] = sequence.random(1)[0].tolist()
        return units

    @cached_property
    def _grid(self) -> list[TrialConfig]:
        """Every point, shuffled by the seed (in natural order ASHA would prune all or none), `first` in front.

        If every trial runs to its end, the order only decides when the last one ends: those that train more layers go
        first, so that short ones fill the slots at the end (longest processing time first, Graham 1969).
        """
        space, search = self.config.space, self.config.search
        all_end = self.config.asha is None and search.time_limit is None
        points = space.points()
        order = np.random.default_rng(search.seed).permutation(len(points))
        shuffled = [points[index] for index in order]
        wanted = [space.check(partial) for partial in search.first]

        def place(point: Point) -> tuple[bool, int]:
            is_first = any(space.matches(given, point) for given in wanted)
            return not is_first, CUTS[self._settings(point).strategy] if all_end else 0

        return [self._settings(point) for point in sorted(shuffled, key=place)]

    def _untried(
        self, tried: Mapping[str, Recorded], number: int
    ) -> tuple[int, TrialConfig] | None:
        """A seeded point that was not tried; None if the space is exhausted."""
        space = self.config.space
        draws = np.random.default_rng(mix(self.config.search.seed, number))
        if space.is_finite and space.combinations <= LARGEST_GRID:
            left = [p for p in space.points() if self._settings(p).trial_id not in tried]
            return (number, self._settings(left[draws.integers(len(left))])) if left else None
        for _ in range(DRAWS):
            settings = self._settings(space.at(draws.random(len(space.dimensions)).tolist()))
            if settings.trial_id not in tried:
                return number, settings
        return None
