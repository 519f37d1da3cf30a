"""Standard errors of comparisons of trials: over training again, and over other images, which all trials share.

Trials are scored on the same validation images, so a difference between two settings has two sources of chance: the
seed (trials) and the images. The spread of trials alone misses what an image does to all trials of one setting. Trials
and images are crossed random factors; the variance of a contrast is assembled from mean squares, with Satterthwaite's
degrees of freedom (Satterthwaite 1946; Searle, Casella and McCulloch 1992, Variance Components, ch. 4).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from analysis.levels import ALPHA, CONFIDENCE, POWER

Numbers = np.ndarray[Any, np.dtype[np.float64]]
TINY: Final = 1e-12
"""Below it a variance of shares is a rounding error; assumed."""


@dataclass(frozen=True)
class Uncertain:
    """A contrast of trials with its standard error."""

    estimate: float
    """Σ w_j · (mean of trial j over images)."""
    error: float
    """Standard error."""
    degrees: float
    """Degrees of freedom of Student's t."""

    @property
    def p(self) -> float:
        """Two-sided p-value; the null hypothesis is that the contrast is 0."""
        from scipy.stats import t

        if self.error == 0:
            return 0.0 if self.estimate else 1.0
        return float(2 * t.sf(abs(self.estimate) / self.error, self.degrees))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Student's t interval around the estimate."""
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, self.degrees)) * self.error
        return self.estimate - half, self.estimate + half

    def visible(self, level: float = ALPHA, power: float = POWER) -> float:
        """The difference that a two-sided test at `level` detects with `power`: (t_(1-level/2) + t_power) · error."""
        from scipy.stats import t

        return float(t.ppf(1 - level / 2, self.degrees) + t.ppf(power, self.degrees)) * self.error


def uncertain(
    weights: Numbers, design: Numbers, values: Numbers, stands_for: Numbers | None = None
) -> Uncertain:
    """The contrast Σ w_j y_j with its standard error and degrees of freedom.

    weights (trials,): the contrast. It must be estimable: a combination of the rows of the design's own estimator,
        such as 1/a for each of a replicates of one setting and -1/b for each of b replicates of another.
    design (trials, parameters): the linear model, with its intercept, from which trials differ only by chance; for
        groups, a column of 0 and 1 for each group.
    values (trials, images): the value of each trial on each image, such as 1 where it is right and 0 where it is not.
        With one column, the trials' values themselves: the result then holds on these images only.

    With k trials, p parameters (the rank) and n images: V_t = s² Σ w², s² the residual mean square of the trials'
    means; V_i the variance over images of Σ w_j values_ji, divided by n; V_c, which is part of both, Σ w² / n times the
    mean square of the values after removing the model from each image and the trial's own residual from each trial.
    V = max(V_t, V_i, V_t + V_i - V_c), and ν = V² / (V_t²/(k-p) + V_i²/(n-1) + V_c²/((k-p)(n-1))).

    stands_for (trials,): how many trials each trial represents as a random draw, itself included; 1 if not given. The
        model is then fitted by least squares with these weights, and `weights` are a combination of its estimator's
        rows. These weights are not inverse variances: each trial has the same σ², so V_t is σ² Σ w² as before. The
        weighted sum of squared residuals is e'Ae of the trials' errors e; σ² is that sum / tr A, with tr(A)² / tr(A²)
        degrees of freedom (Satterthwaite); without weights, both are k - p. A draw from trials that were stopped for
        their values varies less than a draw from all trials, so the standard error tends to be too large.

    Raises:
        ValueError: there are as many parameters as trials, or more.
    """
    joint = jointly(weights[None, :], design, values, stands_for)
    return Uncertain(
        float(joint.estimates[0]), float(joint.scale[0, 0] ** 0.5), float(joint.degrees)
    )


@dataclass(frozen=True)
class Joint:
    """Several contrasts at once."""

    estimates: Numbers
    """(contrasts,)."""
    scale: Numbers
    """(contrasts, contrasts): their covariance."""
    degrees: float
    """Degrees of freedom of the denominator."""

    @property
    def p(self) -> float:
        """p-value of Wald's F test; the null hypothesis is that all contrasts are 0."""
        from scipy.stats import f

        if not np.abs(self.scale).max() > 0:
            return 0.0 if np.abs(self.estimates).max() > 0 else 1.0
        ratio = self.estimates @ np.linalg.pinv(self.scale, hermitian=True) @ self.estimates
        return float(f.sf(ratio / len(self.estimates), len(self.estimates), self.degrees))


def jointly(
    weights: Numbers, design: Numbers, values: Numbers, stands_for: Numbers | None = None
) -> Joint:
    """`uncertain` for contrasts (contrasts, trials) that are linearly independent.

    In coordinates in which the trials give all contrasts the same variance, the V of `uncertain` is computed along
    each principal direction of the images' covariance. The degrees of freedom are the smallest over all directions.

    Raises:
        ValueError: there are as many parameters as trials, or more.
    """
    trials, images = values.shape
    standing = np.ones(trials) if stands_for is None else stands_for
    root_standing = standing**0.5
    basis = _basis(design * root_standing[:, None])
    if basis.shape[1] >= trials:
        raise ValueError(
            f"there must be more trials than parameters, but {trials} trials have {basis.shape[1]} parameters"
        )
    trace, free = _left(basis, standing)
    means = values.mean(axis=1, dtype=np.float64)
    scaled = root_standing * means
    residual = scaled - basis @ (basis.T @ scaled)
    left = float(residual @ residual)
    by_trials = _whole(left / trace)
    root = np.linalg.cholesky(weights @ weights.T)
    units = np.linalg.solve(root, weights)  # orthonormal rows: Σ w² is 1 in each
    by_images: Numbers = np.zeros(len(units))
    directions: Numbers = np.eye(len(units))
    common = 0.0
    if images > 1:
        spread = np.atleast_2d(np.cov(units @ values)) / images
        by_images, directions = np.linalg.eigh(spread)
        by_images = np.maximum(by_images, 0)
        squares = float(standing @ np.square(values, dtype=np.float64).sum(axis=1))
        of_images = (
            squares - float((((basis.T * root_standing) @ values) ** 2).sum()) - images * left
        )
        common = _whole(of_images / (trace * (images - 1)) / images)
    total = np.maximum.reduce(
        [np.full(len(units), by_trials), by_images, by_trials + by_images - common]
    )
    back = root @ directions
    return Joint(
        weights @ means,
        (back * total) @ back.T,
        _satterthwaite(total, by_trials, by_images, common, (free, images)),
    )


def _basis(design: Numbers) -> Numbers:
    """Orthonormal columns that span the same space as the design's: (trials, rank)."""
    vectors, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis: Numbers = vectors[:, sizes > sizes.max(initial=0) * 1e-9]
    return basis


def _left(basis: Numbers, standing: Numbers) -> tuple[float, float]:
    """tr A of the weighted sum of squared residuals e'Ae, and its degrees of freedom tr(A)² / tr(A²).

    A = D^½ (I - QQ') D^½ with D the diagonal matrix of `standing`, and Q the `basis` of the model's design after each
    trial's row was multiplied by the root of its `standing`.
    """
    leverage = np.square(basis).sum(axis=1)
    trace = float(standing @ (1 - leverage))
    crossed = basis.T @ (standing[:, None] * basis)
    squared = float(standing**2 @ (1 - 2 * leverage) + np.square(crossed).sum())
    return trace, trace**2 / squared


def _satterthwaite(
    total: Numbers, by_trials: float, by_images: Numbers, common: float, counts: tuple[float, int]
) -> float:
    """Degrees of freedom: the smallest over all directions; those of the trials where there is no spread at all."""
    free, images = counts
    below: Numbers = np.full(len(total), by_trials**2 / free)
    if images > 1:
        below = below + by_images**2 / (images - 1) + common**2 / (free * (images - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(below > 0, total**2 / below, free)
    return float(degrees.min())


def _whole(variance: float) -> float:
    return variance if variance > TINY**2 else 0.0
