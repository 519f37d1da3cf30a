"""What replicates say of settings: each sentence where its condition holds, with scipy's own numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, ttest_ind

from analysis.findings.replicates import (
    Replicated,
    Replication,
    against_first,
    compare_replicates,
)
from analysis.frames.snapshot import Snapshot
from analysis.frames.snapshot.rights import validation_labels
from tests.support.analysis_runs import GOOD, SGD
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.right import append_right
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

N = "\u202f"  # narrow no-break space
STEPS = np.arange(40) / 1_000


def replication(
    first: np.ndarray, second: np.ndarray, metric: Metric = Metric.VAL_ACCURACY
) -> Replication:
    """Settings A and B with these values: (runs,), or right and wrong (runs, images)."""
    values = [each.astype(float).reshape(len(each), -1) for each in (first, second)]
    scores = [[metric.score(value) for value in each.mean(axis=1)] for each in values]
    (versus,) = against_first(metric, values, scores)
    each = [
        Replicated(name, tuple(f"{name}{n}" for n in range(len(found))), (), None, None)
        for name, found in zip("AB", values, strict=True)
    ]
    mean: Any = object()  # there is one; its value is not said
    each = [replace(each[0], mean=mean), replace(each[1], mean=mean, versus=versus)]
    return Replication(metric, tuple(each), None, images=values[0].shape[1])


SURE = (
    f"more than chance, and at least the 75{N}% that count as meaningful (Bouthillier et al. 2021)"
)
UNSURE = f"whether this reaches the 75{N}% that count as meaningful is not known (Bouthillier et al. 2021)"
BELOW = f"below the 75{N}% that count as meaningful (Bouthillier et al. 2021)"
CHANCE = "with so few seeds, this may be due to chance"


@pytest.mark.parametrize(
    ("first", "second", "compared", "meaning"),
    [
        (0.9 + STEPS[:5], 0.8 + STEPS[:5], "A beats B by", SURE),
        (0.9 + STEPS, 0.889 + STEPS, "A beats B by", UNSURE),
        (0.9 + STEPS[:2], 0.89 + STEPS[:2], "A beats B by", CHANCE),
        (0.9 + STEPS[:12], 0.8995 + STEPS[:12], "A and B do not differ by more than 1.0 points:", BELOW),
        (0.9 + 9 * STEPS[:3], 0.89 + 9 * STEPS[:3], "A and B do not differ significantly:", CHANCE),
    ],
)  # fmt: skip
def test_how_sure_a_lead_is_and_how_often_it_comes_again_are_said_apart(
    first: np.ndarray, second: np.ndarray, compared: str, meaning: str
) -> None:
    found = replication(first, second)
    by, again, *_ = found.said()
    witness = ttest_ind(first, second)
    low, high = (f"{100 * end:+.2f}{N}points" for end in witness.confidence_interval(0.95))
    difference = f"{100 * (first.mean() - second.mean()):+.2f}{N}points"
    said = f"{compared} {difference} (95 % confidence interval {low} to {high})"
    assert by.startswith(said.replace("-", "\u2212"))
    if "beats" in compared:
        assert by.endswith(f", p = {witness.pvalue:.2g} after Holm's correction")
    share = mannwhitneyu(first, second).statistic / (len(first) * len(second))
    assert f"A comes out ahead of B on these images in {100 * share:.0f}{N}% of cases" in again
    assert f"{len(first) * len(second)} pairs of trials): " in again and again.endswith(meaning)
    versus = found.each[1].versus
    assert versus is not None and versus.is_meaningful == (meaning == SURE)


def test_a_lead_of_every_seed_on_a_few_images_could_be_reversed_by_others() -> None:
    """All five seeds of A get 35 of 40 images right, those of B 34, and hardly the same ones."""
    images = np.arange(40)
    found = replication(np.tile(images < 35, (5, 1)), np.tile(images >= 6, (5, 1)))
    by, again, *_ = found.said()
    assert by.startswith(f"A and B do not differ significantly: +2.50{N}points (95 % ")
    assert f"in 100{N}% of cases" in again and again.endswith(
        "25 pairs of trials): other images could reverse this, since over them the difference is not significant"
    )


def test_a_small_difference_of_losses_is_not_said_to_be_too_small_to_matter() -> None:
    """What is small depends on a loss's size; a lower one is ahead."""
    found = replication(0.3 + STEPS[:12], 0.3005 + STEPS[:12], Metric.VAL_LOSS)
    by, again, *_ = found.said()
    assert by.startswith("A and B do not differ significantly: 0.0005 (95 % confidence interval ")
    assert f"A comes out ahead of B on these images in 54{N}% of cases" in again


# ---------------------------------------------------------------- from a run


def replicate(run: Path, settings: dict[str, Any], right: np.ndarray, labels: np.ndarray) -> None:
    """Replicates of a setting, one per row of `right` (runs, images), with predictions and bits on record."""
    files = pd.read_parquet(run / "split.parquet").query("part == 'validation'")["file"].tolist()
    for seed, mine in enumerate(right, start=1):
        trial = TrialConfig(**settings, seed=seed, batch_size=8, head="linear")
        record = TrialRecord.create(RunFolder(run), trial, 100 + seed, 1, "replicate")
        share = float(mine.mean())
        append_right(record.right, 1, mine)
        record.append(Row(1, 0.5, 0.8, 0.4, share, share, 0.9, 1e-3, 1.0, 9.0, 0, ""))
        record.write_status(replace(record.status(), status=Status.FINISHED))
        logits = np.where(mine == (labels == 1), 2.0, -2.0)
        frame = pd.DataFrame({"file": files, "label": labels, "logit": logits})
        frame.to_parquet(record.folder / "best-1.parquet", index=False)


def test_which_images_were_right_tells_as_much_as_predictions_and_without_both_it_is_of_these_images(
    run: Path,
) -> None:
    labels, draw = validation_labels(Snapshot.of(run)), np.random.default_rng(0)
    right = draw.random((2, 3, len(labels))) < np.array([0.9, 0.5])[:, None, None]
    for made, mine in zip((GOOD, SGD), right, strict=True):
        replicate(run, dict(made.settings), mine, labels)
    predicted = compare_replicates(run)
    versus = predicted.each[1].versus
    means = right.mean(axis=(1, 2))
    assert predicted.images == len(labels) and versus is not None
    assert versus.difference.difference == pytest.approx(abs(means[0] - means[1]))
    for path in run.glob("trials/*/best-*.parquet"):
        path.unlink()
    assert compare_replicates(run) == predicted
    for path in run.glob("trials/*/right.bits"):
        path.unlink()
    bare = compare_replicates(run)
    assert bare.images == 0 and list(bare.said())[-1] == (
        "predictions of these trials are not on record, so intervals and p-values hold for these validation images only"
    )
    against = bare.each[1].versus
    best, other = sorted(right.mean(axis=2), key=lambda runs: -runs.mean())
    assert against is not None
    assert against.difference.p == pytest.approx(ttest_ind(best, other).pvalue)
