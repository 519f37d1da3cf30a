"""How far a comparison of trials may be off: by training again and by other images, which all trials share.

Trials are scored on the same validation images, so a difference of two settings has two sources of chance: another
seed (trials) and other images. The spread of trials alone leaves out what an image has in common with one setting in
all of its trials. Both are crossed random factors; the variance of a contrast is put together from mean squares, with
Satterthwaite's degrees of freedom (Satterthwaite 1946; Searle, Casella and McCulloch 1992, Variance Components, ch. 4).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]
TINY: Final = 1e-12
"""Below it a variance of shares is a rounding error; assumed."""


@dataclass(frozen=True)
class Uncertain:
    """A contrast of trials with its error."""

    estimate: float
    """Σ w_j · (mean of trial j over images)."""
    error: float
    """Standard error."""
    degrees: float
    """Of freedom, for Student's t."""

    @property
    def p(self) -> float:
        """Two-sided, that the contrast is 0."""
        from scipy.stats import t

        if self.error == 0:
            return 0.0 if self.estimate else 1.0
        return float(2 * t.sf(abs(self.estimate) / self.error, self.degrees))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's, about the estimate."""
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, self.degrees)) * self.error
        return self.estimate - half, self.estimate + half

    def visible(self, level: float = 0.05, power: float = 0.8) -> float:
        """The difference that a two-sided test at `level` sees with this power: (t_(1 - level/2) + t_power) · error."""
        from scipy.stats import t

        return float(t.ppf(1 - level / 2, self.degrees) + t.ppf(power, self.degrees)) * self.error


def uncertain(
    weights: Numbers, design: Numbers, values: Numbers, stands_for: Numbers | None = None
) -> Uncertain:
    """The contrast Σ w_j y_j with its standard error and degrees of freedom.

    weights (trials,): the contrast, which must be estimable: a combination of the rows of the design's own estimator,
        such as 1/a for a replicates of one setting and -1/b for b of another.
    design (trials, parameters): the linear model that trials differ from by chance alone, with its intercept; for
        groups, a column of 0 and 1 for each.
    values (trials, images): what each trial gets for each image, such as 1 where it is right and else 0. With one
        column, the trials' values themselves: then no image is seen, and what is said holds on these images.

    With k trials, p parameters (the rank) and n images: V_t = s² Σ w², s² the residual mean square of the trials'
    means; V_i the variance over images of Σ w_j values_ji, divided by n; V_c = Σ w² / n times the mean square of the
    values after the model is taken out of each image and the trial's own residual out of each trial, which is in both.
    V = max(V_t, V_i, V_t + V_i - V_c), and ν = V² / (V_t²/(k-p) + V_i²/(n-1) + V_c²/((k-p)(n-1))).

    stands_for (trials,): of how many trials each is a random draw, itself among them; one where it is not given. The
        model is then fitted by least squares weighted so, and `weights` are a combination of its estimator's rows.
        Such weights are not inverse variances: each trial has the same σ², so V_t is σ² Σ w² as before. The weighted
        sum of squared residuals is e'Ae of the trials' chances e; σ² is that sum / tr A, and has tr(A)² / tr(A²)
        degrees of freedom in the place of k - p, which both are without weights (Satterthwaite). A draw from trials
        that were stopped for their values varies less than one from all, so the error is rather too large.

    Raises:
        ValueError: as many parameters as trials, or more.
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
    """Of freedom of the denominator."""

    @property
    def p(self) -> float:
        """Of Wald's F test, that all contrasts are 0."""
        from scipy.stats import f

        if not np.abs(self.scale).max() > 0:
            return 0.0 if np.abs(self.estimates).max() > 0 else 1.0
        ratio = self.estimates @ np.linalg.pinv(self.scale, hermitian=True) @ self.estimates
        return float(f.sf(ratio / len(self.estimates), len(self.estimates), self.degrees))


def jointly(
    weights: Numbers, design: Numbers, values: Numbers, stands_for: Numbers | None = None
) -> Joint:
    """`uncertain` for contrasts (contrasts, trials) that are linearly independent.

    In the coordinates in which trials alone give all contrasts the same variance, V of `uncertain` is taken along each
    principal direction of the images' covariance. The degrees of freedom are the smallest of all directions.

    Raises:
        ValueError: as many parameters as trials, or more.
    """
    trials, images = values.shape
    standing = np.ones(trials) if stands_for is None else stands_for
    root_standing = standing**0.5
    basis = _basis(design * root_standing[:, None])
    if basis.shape[1] >= trials:
        raise ValueError(
            f"more trials than parameters are needed, but {trials} have {basis.shape[1]}"
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
    """Orthonormal columns that span the design's: (trials, rank)."""
    vectors, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis: Numbers = vectors[:, sizes > sizes.max(initial=0) * 1e-9]
    return basis


def _left(basis: Numbers, standing: Numbers) -> tuple[float, float]:
    """tr A of the weighted sum of squared residuals e'Ae, and its degrees of freedom tr(A)² / tr(A²).

    A = D^½ (I - QQ') D^½ with D of `standing` and Q the `basis` of the model's design, each trial times its root.
    """
    leverage = np.square(basis).sum(axis=1)
    trace = float(standing @ (1 - leverage))
    crossed = basis.T @ (standing[:, None] * basis)
    squared = float(standing**2 @ (1 - 2 * leverage) + np.square(crossed).sum())
    return trace, trace**2 / squared


def _satterthwaite(
    total: Numbers, by_trials: float, by_images: Numbers, common: float, counts: tuple[float, int]
) -> float:
    """Smallest of all directions; at least that of the trials where they have no spread at all."""
    free, images = counts
    below: Numbers = np.full(len(total), by_trials**2 / free)
    if images > 1:
        below = below + by_images**2 / (images - 1) + common**2 / (free * (images - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(below > 0, total**2 / below, free)
    return float(degrees.min())


def _whole(variance: float) -> float:
    return variance if variance > TINY**2 else 0.0
