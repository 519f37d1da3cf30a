"""Beyond accuracy: numbers against textbooks and other programs, intervals that hold the truth."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from analysis import plots
from analysis.judgement import Judgement, gap_between, judge_part
from analysis.judgement.areas import ranking_of
from analysis.judgement.bootstrap import areas, draws
from analysis.judgement.bootstrap import mean_of_images as mean_of
from analysis.judgement.calibration import calibration_of
from analysis.judgement.groups import groups_of
from analysis.judgement.mistakes import most_confident
from analysis.statistics import two_proportions, wilson
from analysis.wording import positive_said
from trainable.errors import RequestError


def frame(labels: list[int], logits: list[float]) -> pd.DataFrame:
    files = [f"{n:06d}.jpg" for n in range(len(labels))]
    return pd.DataFrame({"file": files, "label": labels, "logit": logits})


def drawn(images: int, seed: int, apart: float = 2.0, sure: float = 1.0) -> pd.DataFrame:
    """Scores of two normal classes, `apart` standard deviations; true probabilities where `sure` is 1."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(images) < images // 2
    scores = draw.normal(size=images) + apart * labels
    return frame(labels.astype(int).tolist(), (sure * apart * (scores - apart / 2)).tolist())


def judgement_of(predictions: pd.DataFrame, attributes: pd.DataFrame | None = None) -> Judgement:
    return judge_part("validation", "0" * 12, 3, predictions, attributes, "Smiling")


PREDICTIONS = st.lists(
    st.tuples(st.integers(0, 1), st.floats(-40, 40)), min_size=2, max_size=60
).map(lambda images: frame([label for label, _ in images], [logit for _, logit in images]))


# ---------------------------------------------------------------- calibration


@given(PREDICTIONS)
def test_bins_and_brier_score_are_those_that_scikit_learn_gives(predictions: pd.DataFrame) -> None:
    found = calibration_of(predictions)
    probability = 1 / (1 + np.exp(-predictions["logit"]))
    shares, means = calibration_curve(predictions["label"], probability, n_bins=10)
    assert [b.share for b in found.bins] == pytest.approx(shares.tolist())
    assert [b.probability for b in found.bins] == pytest.approx(means.tolist())
    brier = metrics.brier_score_loss(predictions["label"], probability, labels=[0, 1])
    assert found.brier.value == pytest.approx(brier)
    assert sum(b.images for b in found.bins) == len(predictions)
    for each in found.bins:
        assert each.interval == wilson(each.positives, each.images)


def test_the_calibration_error_is_the_sum_by_hand() -> None:
    logit = float(
        np.log(0.75 / 0.25)
    )  # 75 % sure of four images, three of them so; 25 % of two, one
    found = calibration_of(frame([1, 1, 1, 0, 1, 0], [logit] * 4 + [-logit] * 2))
    assert [(round(b.low, 1), round(b.high, 1), b.images) for b in found.bins] == [
        (0.2, 0.3, 2),
        (0.7, 0.8, 4),
    ]
    assert found.error == pytest.approx(2 / 6 * (0.5 - 0.25))
    assert found.brier_of_share == pytest.approx(float(Fraction(4, 6) * Fraction(2, 6)))
    assert (found.confidence, found.accuracy) == pytest.approx((0.75, 4 / 6))


def test_true_probabilities_are_not_called_off_and_too_sure_ones_are() -> None:
    beyond = [calibration_of(drawn(600, seed)) for seed in range(40)]
    assert sum(each.error > each.error_by_chance.high for each in beyond) <= 5
    sure = calibration_of(drawn(600, 0, sure=3))
    assert sure.error > sure.error_by_chance.high
    said = " ".join(sure.said())
    assert "the model is miscalibrated" in said and "overconfident by" in said
    unsure = " ".join(calibration_of(drawn(600, 0, sure=0.3)).said())
    assert "underconfident by" in unsure


# ---------------------------------------------------------------- areas


def test_a_roc_curve_by_hand() -> None:
    """Fawcett (2006), figure 3: ten positives and ten negatives, AUC 0.68; recall is 0.5 at no more than 0.1."""
    order = "ppnpppnnpnpnpnnnpnpn"
    logits = [float(20 - n) for n in range(20)]
    ranking, curves = ranking_of(frame([int(c == "p") for c in order], logits)) or pytest.fail()
    assert ranking.auc.value == pytest.approx(0.68)
    assert curves.roc[curves.roc["false_positive_rate"] <= 0.1]["recall"].max() == 0.5
    assert ranking.auc.interval is None, "ten images of a class are too few"
    assert ranking.operating.recall == ranking.operating.false_positive_rate == 1


@given(PREDICTIONS.filter(lambda found: found["label"].nunique() == 2))
def test_areas_and_curves_are_those_that_scikit_learn_gives(predictions: pd.DataFrame) -> None:
    label, logit = predictions["label"], predictions["logit"]
    ranking, curves = ranking_of(predictions) or pytest.fail()
    assert ranking.auc.value == pytest.approx(metrics.roc_auc_score(label, logit))
    assert ranking.average_precision.value == pytest.approx(
        metrics.average_precision_score(label, logit)
    )
    area = np.trapezoid(curves.roc["recall"], curves.roc["false_positive_rate"])
    assert area == pytest.approx(ranking.auc.value)
    called = (logit > 0).astype(int)
    assert ranking.operating.recall == metrics.recall_score(label, called)
    if called.any():
        assert ranking.operating.precision == metrics.precision_score(label, called)
    else:
        assert ranking.operating.precision is None


def test_one_class_alone_can_not_be_ranked_and_a_logit_that_is_not_finite_can() -> None:
    alone = judgement_of(frame([1, 1], [0.5, 1.0]))
    assert alone.ranking is None and "nothing to rank" in " ".join(alone.ranking_said())
    ranking, _ = ranking_of(frame([0, 1], [-np.inf, np.inf])) or pytest.fail()
    assert ranking.auc.value == 1
    with pytest.raises(RequestError, match="a prediction that is a number"):
        judgement_of(frame([0, 1], [0.1, np.nan]))


def test_a_perfect_ranking_has_no_interval() -> None:
    found = judgement_of(frame([0] * 50 + [1] * 50, [-1.0] * 50 + [1.0] * 50))
    assert found.ranking is not None and found.ranking.auc.interval is None
    assert "no confidence interval" in " ".join(found.ranking_said())


# ---------------------------------------------------------------- bootstrap


def test_draws_keep_the_classes_and_are_always_the_same() -> None:
    labels = np.arange(50) < 20
    first, second = (np.concatenate(list(draws(labels, 300))) for _ in range(2))
    assert first.shape == (300, 50) and (first == second).all()
    assert (first[:, labels].sum(axis=1) == 20).all() and (first.sum(axis=1) == 50).all()
    assert first.mean(axis=0) == pytest.approx(np.ones(50), abs=0.25)


def test_the_interval_is_about_that_of_scipys_bootstrap_of_the_mean() -> None:
    draw = np.random.default_rng(0)
    values, labels = draw.beta(2, 8, size=400), draw.random(400) < 0.5
    found = mean_of(values, labels).interval
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5_000, rng=2).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


@pytest.mark.whole
def test_nineteen_of_twenty_intervals_of_area_and_brier_score_hold_the_truth() -> None:
    """Of 300 images, classes 2.5 standard deviations apart, where percentiles of the draws hold 93 %."""
    apart, images, sets = 2.5, 300, 500
    x = np.linspace(-9, 11, 20_001)
    chance = 1 / (1 + np.exp(-apart * (x - apart / 2)))
    squares = (stats.norm.pdf(x) * chance**2 + stats.norm.pdf(x - apart) * (1 - chance) ** 2) / 2
    truths = {
        "area": stats.norm.cdf(apart / np.sqrt(2)),
        "brier": float(np.trapezoid(squares, x)),
    }
    held = dict.fromkeys(truths, 0)
    for seed in range(sets):
        predictions = drawn(images, seed, apart)
        labels = predictions["label"].to_numpy() > 0
        scores = predictions["logit"].to_numpy()
        found = {
            "area": areas(scores, labels, 300)[0],
            "brier": mean_of((1 / (1 + np.exp(-scores)) - labels) ** 2, labels, 300),
        }
        for name, estimate in found.items():
            assert estimate.interval is not None
            held[name] += estimate.interval.low <= truths[name] <= estimate.interval.high
    for name, count in held.items():
        assert 0.93 <= count / sets <= 0.97, name


def test_the_band_surrounds_the_curve_and_narrows_with_more_images() -> None:
    widths = []
    for images in (200, 2_000):
        ranking, curves = ranking_of(drawn(images, 0)) or pytest.fail()
        band = curves.band.iloc[5:-5]
        recall = np.interp(band["place"], curves.roc["false_positive_rate"], curves.roc["recall"])
        assert (band["recall_low"] - 0.02 <= recall).all()
        assert (recall <= band["recall_high"] + 0.02).all()
        widths.append((band["recall_high"] - band["recall_low"]).mean())
        assert ranking.auc.interval is not None
        assert ranking.auc.interval.low < ranking.auc.value < ranking.auc.interval.high
    assert widths[1] < widths[0] / 2


# ---------------------------------------------------------------- two shares, gap, groups


def test_the_difference_of_two_shares_is_newcombes_example() -> None:
    """Newcombe (1998), table II (a), method 10: 56 of 70 and 48 of 80."""
    found = two_proportions(56, 70, 48, 80)
    assert found.difference == pytest.approx(0.2)
    assert (round(found.interval.low, 4), round(found.interval.high, 4)) == (0.0524, 0.3339)
    assert found.p == stats.fisher_exact([[56, 14], [48, 32]]).pvalue


@pytest.mark.parametrize(
    ("right", "word"),
    [(180, "Newcombe), not significantly different"), (140, "Newcombe), significantly different")],
)
def test_the_gap_says_whether_chance_explains_it(right: int, word: str) -> None:
    def of(count: int) -> pd.DataFrame:
        return frame([1] * 200, [1.0] * count + [-1.0] * (200 - count))

    gap = gap_between(of(right), of(184))
    assert gap.versus.difference == pytest.approx((right - 184) / 200)
    (said,) = gap.said()
    assert word in said and "\u2212" in said


def test_a_difference_between_groups_is_found_where_it_was_planted() -> None:
    draw = np.random.default_rng(0)
    male = draw.random(1_000) < 0.4
    right = draw.random(1_000) < np.where(male, 0.75, 0.95)
    predictions = frame([1] * 1_000, np.where(right, 1.0, -1.0).tolist())
    table = pd.DataFrame(
        {
            "Smiling": 1,
            "Male": np.where(male, 1, -1),
            "Young": draw.choice([0, 1], 1_000),
            "Side": draw.choice(["left", "right"], 1_000),
            "Bald": [1] * 19 + [-1] * 981,
            "Height": draw.normal(size=1_000),
        },
        index=predictions["file"],
    ).sample(frac=1, random_state=0)
    found = groups_of(predictions, table, "Smiling")
    assert [each.name for each in found.each if each.differs] == ["Male"]
    assert {each.name for each in found.each} == {"Male", "Young", "Side"}
    assert found.left_out == ("Bald",)
    first = found.each[0]
    assert (first.having.value, first.lacking.value) == ("yes", "no")
    assert (first.having.images, first.having.accuracy) == (male.sum(), right[male].mean())
    assert first.lacking.accuracy == right[~male].mean()
    assert next(each for each in found.each if each.name == "Side").having.value == "right"
    said = list(found.said())
    assert "where Male is yes" in said[0] and "1 attribute left out" in said[-1]


def test_images_without_a_value_are_in_neither_group() -> None:
    predictions = frame([1] * 100, [1.0] * 100)
    table = pd.DataFrame({"A": [1.0] * 30 + [-1.0] * 30 + [np.nan] * 40}, index=predictions["file"])
    (found,) = groups_of(predictions, table, "Smiling").each
    assert (found.having.images, found.lacking.images) == (30, 30)
    assert found.versus.p == found.p_holm == 1


# ---------------------------------------------------------------- mistakes, words, pictures


@given(PREDICTIONS)
def test_the_surest_mistakes_are_wrong_and_surer_than_all_others(predictions: pd.DataFrame) -> None:
    found = most_confident(predictions)
    wrong = predictions[(predictions["logit"] > 0) != (predictions["label"] == 1)]
    assert len(found) == min(12, len(wrong))
    assert found["logit"].abs().tolist() == sorted(wrong["logit"].abs(), reverse=True)[:12]


@pytest.mark.parametrize(
    ("classes", "said"),
    [(["-1", "1"], "Smiling"), (["False", "True"], "Smiling"), (["a", "b"], "Smiling = b")],
)
def test_the_positive_class_has_a_name(classes: list[str], said: str) -> None:
    assert positive_said("Smiling", classes) == said


def test_what_is_drawn_is_what_was_counted() -> None:
    predictions = drawn(400, 1)
    table = pd.DataFrame({"A<b>": [1, -1] * 200}, index=predictions["file"])
    judgement = judgement_of(predictions, table)
    found = {name: figure for name, _, figure in plots.judgement_figures(judgement, "a<i>")}
    assert list(found) == ["reliability", "roc", "precision-recall", "groups"]
    bins = judgement.calibration.bins
    _, points, bars = found["reliability"].data
    assert list(bars.y) == [b.images for b in bins]
    assert list(points.y) == pytest.approx([100 * b.share for b in bins], abs=0.001)
    ends = [100 * b.interval.high for b in bins]
    assert np.add(points.y, points.error_y.array) == pytest.approx(ends, abs=0.002)
    assert "a&lt;i&gt;" in found["reliability"].layout.xaxis.title.text
    ranking = judgement.ranking
    assert ranking is not None
    *_, curve, mark = found["roc"].data
    area = np.trapezoid(np.array(curve.y) / 100, np.array(curve.x) / 100)
    assert area == pytest.approx(ranking.auc.value, abs=1e-4)
    assert (mark.x[0], mark.y[0]) == pytest.approx(
        (100 * ranking.operating.false_positive_rate, 100 * ranking.operating.recall)
    )
    *_, curve, mark = found["precision-recall"].data
    assert curve.x[0] <= curve.x[-1] == 100
    differ, same = found["groups"].data
    assert list(differ.y) + list(same.y) == ["A&lt;b&gt;"]
    for figure in found.values():
        for axis in (figure.layout.xaxis, figure.layout.yaxis):
            assert axis.title.text or figure is found["groups"]
