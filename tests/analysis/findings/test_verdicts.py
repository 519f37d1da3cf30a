"""Verdicts on settings: who is compared, by which model, and what may be said."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.findings.effects.claims import Mattered, Verdict
from analysis.findings.effects.edges import edges_of
from analysis.findings.effects.endings import rise_of
from analysis.findings.effects.learning import LearningCurve, Moment, moment_of, part, slow_values
from analysis.findings.effects.model import model_of, terms_of
from analysis.findings.effects.said import Saying
from analysis.findings.effects.verdicts import what_mattered
from analysis.image_variance import jointly
from analysis.plots.effects import effects as effects_plot
from sweep.request.space import Choice, Dimension, Range
from trainable.metric import Metric
from trainable.records.rows import Status

CHANCE = 0.55
STRATEGY = Dimension("strategy", Choice(("head", "block5")))
AUGMENTATION = Dimension("augmentation", Choice(("none", "flip")))
RATES = Dimension("lr", Choice((1e-4, 1e-3, 1e-2)))
SEEDS = Dimension("seed", Choice((1, 2)))
RANGE = Dimension("lr", Range("loguniform", 1e-5, 1e-2))
FIRST_RUNG, END = Moment(2, 4), Moment(4, 4)


def trial(
    scores: Sequence[float], status: Status = Status.FINISHED, area: float = 0.9, **settings: Any
) -> LearningCurve:
    """Learning from the first epoch on, unless its area is that of chance."""
    return LearningCurve(settings, status, np.array(scores, float), np.full(len(scores), area))


def grid(lead: float = 0.1, noise: float = 0.002, seed_effect: float = 0.0) -> list[LearningCurve]:
    """Strategy × augmentation × rate × seed, block5 ahead at the first rung; all run to the end."""
    draw = np.random.default_rng(0)
    found = []
    for strategy in ("head", "block5"):
        for augmentation in ("none", "flip"):
            for lr in (1e-4, 1e-3, 1e-2):
                for seed in (1, 2):
                    value = 0.8 + lead * (strategy == "block5") + seed_effect * seed
                    scores = value + draw.normal(0, noise) + np.array([-0.01, 0, 0.01, 0.02])
                    settings: dict[str, Any] = {"strategy": strategy, "augmentation": augmentation}
                    found.append(trial(scores.tolist(), **settings, lr=lr, seed=seed))
    return found


def mattered(
    curves: Sequence[LearningCurve], *dimensions: Dimension, moment: Moment = END
) -> Mattered:
    return what_mattered(curves, None, dimensions, moment, CHANCE)


def said(found: Mattered, metric: Metric = Metric.VAL_ACCURACY) -> str:
    return "\n".join(Saying(metric, found).sentences())


ALL = (STRATEGY, AUGMENTATION, RATES, SEEDS)


def test_trials_are_compared_at_the_first_rung_and_without_asha_at_the_end() -> None:
    assert moment_of([2, 4], 8) == Moment(2, 8)
    assert moment_of([], 8).is_end


def test_who_collapsed_diverged_or_stayed_flat_to_the_end_did_not_learn() -> None:
    curves = [
        trial([0.8, 0.9, 0.9, 0.9]),
        trial([0.5, 0.5], Status.COLLAPSED),
        trial([0.8], Status.DIVERGED),
        trial([0.5] * 4, area=0.52),
        trial([0.5] * 2, Status.PRUNED, area=0.52),
        trial([0.8], Status.RUNNING),
    ]
    found = part(curves, FIRST_RUNG, CHANCE)
    assert (found.compared, found.broken, found.not_yet) == ((0,), (1, 2, 3), (4,))


def test_who_learns_later_was_not_yet_learning_at_the_rung_and_is_compared_at_the_end() -> None:
    late = LearningCurve(
        {}, Status.FINISHED, np.array([0.5, 0.5, 0.8, 0.9]), np.array([0.5, 0.5, 0.9, 0.9])
    )
    assert part([late], FIRST_RUNG, CHANCE).not_yet == (0,)
    assert part([late], END, CHANCE).compared == (0,)


def test_a_setting_that_matters_is_told_from_those_that_do_not() -> None:
    found = mattered(grid(), *ALL)
    by_name = {(e.name, e.second): e for e in found.effects}
    strategy = by_name["strategy", "head"]
    assert strategy.verdict is Verdict.BETTER and strategy.first == "block5"
    assert strategy.low < 0.1 < strategy.high and strategy.pairs == (12, 12)
    others = [e.verdict for e in found.effects if e.name != "strategy"]
    assert others == [Verdict.NO_DIFFERENCE] * 3  # augmentation, and the best rate with two others
    assert "after 4 epochs on these images, strategy block5 is ahead of head by" in said(found)
    assert "; ahead in 12 of 12 pairs)" in said(found)


def test_a_seed_is_no_setting() -> None:
    """However much it does, here a point: neither effect nor edge."""
    found = mattered(grid(seed_effect=0.01), *ALL)
    assert "seed" not in {e.name for e in found.effects} | {c.name for c in found.counts}
    assert "seed" not in {t.name for t in found.trends}
    seeds = Dimension("seed", Range("int", 1, 9))
    assert list(edges_of({"seed": 9, "augmentation_seed": 9}, [seeds])) == []


def test_without_noise_enough_said_what_could_have_been_seen() -> None:
    found = mattered(grid(lead=0.01, noise=0.03), *ALL)
    (strategy,) = (e for e in found.effects if e.name == "strategy")
    assert strategy.verdict is Verdict.CANT_TELL
    assert "do not differ significantly" in said(found) and "with 80 % power" in said(found)
    assert strategy.visible > 2 * (strategy.high - strategy.low) / 4


def test_a_share_that_no_run_can_differ_by_is_not_said_to_be_visible() -> None:
    found = mattered(grid(lead=0.0), STRATEGY)
    wide = replace(found.effects[0], verdict=Verdict.CANT_TELL, visible=1.004)
    assert "detects no difference, however large" in said(replace(found, effects=(wide,)))
    loss = said(replace(found, effects=(wide,)), Metric.VAL_LOSS)
    assert "detects a difference of 1.0040 with" in loss, "a loss has no largest difference"


def test_a_rate_at_which_all_collapse_moves_nothing_and_is_counted() -> None:
    curves = grid()
    broken = [
        replace(c, settings={**c.settings, "lr": 0.3}, status=Status.COLLAPSED)
        for c in curves[:12:2]
    ]
    rates = Dimension("lr", Choice((1e-4, 1e-3, 1e-2, 0.3)))
    without, with_it = (
        mattered(curves, *ALL),
        mattered([*curves, *broken], STRATEGY, AUGMENTATION, rates, SEEDS),
    )
    assert with_it.effects == without.effects
    assert "with lr 0.3, 6 of 6 trials did not learn; with other values, 0 of 24" in said(with_it)


def test_the_lead_at_a_rung_leaves_the_end_open() -> None:
    """As in the demo: no head trial ran to the end."""
    stopped = [
        replace(c, scores=c.scores[:2], areas=c.areas[:2], status=Status.PRUNED)
        if c.settings["strategy"] == "head"
        else c
        for c in grid()
    ]
    text = said(mattered(stopped, *ALL, moment=FIRST_RUNG))
    assert "after 2 epochs on these images, strategy block5 is ahead of head" in text
    assert (
        "no head trial that learned ran to the end, so it is not known whether head catches up"
        in text
    )
    everyone = said(mattered(grid(), *ALL, moment=FIRST_RUNG))
    assert (
        "it is not known which is ahead at the end: 12 of 12 block5 trials and 12 of 12 head trials"
        in everyone
    )
    assert "is not known" not in said(mattered(grid(), *ALL))


def test_a_value_of_which_many_were_not_yet_learning_can_not_be_told() -> None:
    curves = grid()
    for place in (12, 15, 18, 21):  # a third of block5, of various rates
        slow = replace(
            curves[place], areas=np.full(2, 0.5), scores=np.full(2, 0.5), status=Status.PRUNED
        )
        curves[place] = slow
    found = mattered(curves, *ALL, moment=FIRST_RUNG)
    (strategy,) = (e for e in found.effects if e.name == "strategy")
    assert strategy.verdict is Verdict.CANT_TELL and strategy.not_yet is not None
    assert "4 of 12 trials with block5 were not yet learning after 2 epochs" in said(found)


def test_flat_trials_of_a_rate_that_no_trial_learns_with_count_against_that_rate_alone() -> None:
    curves = grid()
    flat = [
        replace(c, areas=np.full(4, 0.5), status=Status.PRUNED) if c.settings["lr"] == 1e-2 else c
        for c in curves
    ]
    found = mattered(flat, *ALL, moment=FIRST_RUNG)
    parted = part(flat, FIRST_RUNG, CHANCE)
    assert slow_values(flat, parted, found.counts) == []
    assert {e.verdict for e in found.effects if e.name == "strategy"} == {Verdict.BETTER}


def test_too_few_trials_are_a_reason_and_no_verdict() -> None:
    found = mattered(grid()[::4], *ALL)
    assert found.effects == () and found.lacking > 0
    assert "this space needs at least" in said(found)


TEETH = {
    ("VC", 0.5): "4.2 11.5 7.3 5.8 6.4 10 11.2 11.2 5.2 7",
    ("VC", 1.0): "16.5 16.5 15.2 17.3 22.5 17.3 13.6 14.5 18.8 15.5",
    ("VC", 2.0): "23.6 18.5 33.9 25.5 26.4 32.5 26.7 21.5 23.3 29.5",
    ("OJ", 0.5): "15.2 21.5 17.6 9.7 14.5 10 8.2 9.4 16.5 9.7",
    ("OJ", 1.0): "19.7 23.3 23.6 26.4 20 25.2 25.8 21.2 14.5 27.3",
    ("OJ", 2.0): "25.5 26.4 22.4 24.5 24.8 30.9 26.4 27.3 29.4 23",
}
"""Bliss's guinea pigs (1952), as in every book: length of teeth by supplement and dose."""


def test_strategy_with_rate_gives_the_textbooks_value() -> None:
    curves = [
        trial([float(value)], strategy=supplement, lr=dose)
        for (supplement, dose), values in TEETH.items()
        for value in values.split()
    ]
    supplement = Dimension("strategy", Choice(("OJ", "VC")))
    dose = Dimension("lr", Choice((0.5, 1.0, 2.0)))
    found = mattered(curves, supplement, dose, moment=Moment(1, 1))
    assert found.together is not None
    # R's aov: F(2, 54) = 4.107, p = 0.0218603; the two main effects are smaller, so Holm leaves it as it is
    assert found.together.p_holm == pytest.approx(0.0218603, abs=1e-7)
    assert found.together.best == {"OJ": 2.0, "VC": 2.0}
    assert [e.at_best_rates for e in found.effects] == [True]
    assert found.effects[0].difference == pytest.approx(26.14 - 26.06)  # VC less OJ at dose 2
    assert found.effects[0].verdict is Verdict.CANT_TELL


def test_a_rate_that_suits_one_strategy_alone_is_named() -> None:
    draw = np.random.default_rng(4)
    rates = 10 ** draw.uniform(-5, -2, 24)
    curves = [
        trial(
            [0.9 - 0.03 * (np.log10(lr) - best) ** 2 + draw.normal(0, 0.005)], strategy=name, lr=lr
        )
        for (name, best), lr in zip([("head", -3), ("block5", -4)] * 12, rates, strict=True)
    ]
    found = mattered(curves, STRATEGY, RANGE, moment=Moment(1, 1))
    assert found.together is not None and found.together.is_claimed
    assert found.together.best["head"] == pytest.approx(1e-3, rel=0.7)
    assert found.together.best["block5"] == pytest.approx(1e-4, rel=0.7)
    assert "the best lr depends on the strategy" in said(found)
    assert found.trends == ()


def test_a_pair_of_values_that_can_not_be_told_from_another_setting_has_no_verdict() -> None:
    """Only block4 was trained with jitter, and with nothing else; of the other strategies none and flip are known."""
    draw = np.random.default_rng(10)
    tried = [("head", "none"), ("head", "flip"), ("block5", "none"), ("block5", "flip")] * 4
    tried += [("block4", "flip_jitter")] * 4
    reached = {"none": 0.80, "flip": 0.85, "flip_jitter": 0.82}
    scores = [reached[augmentation] + draw.normal(0, 0.003) for _, augmentation in tried]
    curves = [
        trial([score], strategy=strategy, augmentation=augmentation)
        for (strategy, augmentation), score in zip(tried, scores, strict=True)
    ]
    strategies = Dimension("strategy", Choice(("head", "block5", "block4")))
    augmentations = Dimension("augmentation", Choice(("none", "flip", "flip_jitter")))
    found = mattered(curves, strategies, augmentations, moment=Moment(1, 1))
    (flip,) = (e for e in found.effects if e.name == "augmentation")
    assert (flip.first, flip.second, flip.verdict) == ("flip", "none", Verdict.BETTER)
    assert flip.difference == pytest.approx(
        np.mean(scores[1:16:2]) - np.mean(scores[0:16:2])  # flip and none take turns, as often each
    )
    assert "block4" not in {e.first for e in found.effects} | {e.second for e in found.effects}


@pytest.mark.parametrize(
    ("broken", "within"), [((3e-3, 9e-3), "0.003 to 0.009"), ((3e-3,), "0.003"), ((1e-6,), "1e-06")]
)
def test_rates_from_a_range_that_alone_did_not_learn_are_named_with_their_range(
    broken: tuple[float, ...], within: str
) -> None:
    curves = [trial([0.9], lr=lr) for lr in np.geomspace(1e-5, 1e-3, 8)]
    curves += [trial([0.5], Status.COLLAPSED, lr=lr) for lr in broken]
    text = said(mattered(curves, RANGE, moment=Moment(1, 1)))
    trials = "1 trial" if len(broken) == 1 else "2 trials"
    assert f"{trials} did not learn, with lr {within}; the others have 1e-05 to 0.001\n" in text
    among = [*curves, trial([0.9], lr=0.02), trial([0.9], lr=1e-7)]
    assert f"{trials} did not learn\n" in said(mattered(among, RANGE, moment=Moment(1, 1)))


def test_who_stands_for_three_counts_as_three_and_tells_less_than_three() -> None:
    """Weighted least squares are those of trials written down so often; the error is not."""
    curves = grid(lead=0.01, noise=0.01)
    standing = [replace(curve, stands_for=1.0 + 2 * (n % 3 == 0)) for n, curve in enumerate(curves)]
    written = [curve for curve in standing for _ in range(int(curve.stands_for))]
    weighted, repeated = (
        {e.name: e for e in mattered(each, STRATEGY, AUGMENTATION, SEEDS).effects}
        for each in (standing, [replace(curve, stands_for=1.0) for curve in written])
    )
    for name in ("strategy", "augmentation"):
        one, other = weighted[name], repeated[name]
        assert one.difference == pytest.approx(other.difference)
        assert one.high - one.low > 1.2 * (other.high - other.low)
    assert weighted["strategy"].pairs == (0, 0)
    alike = mattered([replace(curve, stands_for=2.5) for curve in curves], *ALL)
    keys = ("difference", "low", "high", "p_holm", "visible")
    assert [replace(e, pairs=(0, 0)) for e in mattered(curves, *ALL).effects] == [
        replace(e, **dict[str, Any]((key, pytest.approx(getattr(e, key))) for key in keys))
        for e in alike.effects
    ]


def test_what_can_not_be_told_from_another_setting_has_no_verdict() -> None:
    """Every head trial was trained without augmentation, every other with it."""
    draw = np.random.default_rng(5)
    pairs = [("head", "none"), ("block5", "flip")] * 8
    curves = [trial([draw.normal(0.9, 0.01)], strategy=s, augmentation=a) for s, a in pairs]
    assert mattered(curves, STRATEGY, AUGMENTATION, moment=Moment(1, 1)).effects == ()


def test_a_setting_that_acts_in_some_trials_only_is_no_hindrance() -> None:
    draw = np.random.default_rng(6)
    ratio = Dimension("backbone_lr_ratio", Range("loguniform", 0.01, 1))
    curves = [trial([draw.normal(0.8, 0.005)], strategy="head") for _ in range(10)] + [
        trial(
            [draw.normal(0.9, 0.005)],
            strategy="block5",
            backbone_lr_ratio=10 ** draw.uniform(-2, 0),
        )
        for _ in range(10)
    ]
    found = mattered(curves, STRATEGY, ratio, moment=Moment(1, 1))
    (strategy,) = found.effects
    assert strategy.low < 0.1 < strategy.high and strategy.verdict is Verdict.BETTER
    assert [trend.name for trend in found.trends] == ["backbone_lr_ratio"]


def test_images_widen_the_interval_by_what_a_setting_makes_of_them() -> None:
    """Trials of a setting agree in every image, so seeds show no spread and images all of it."""
    draw = np.random.default_rng(7)
    shown = {"head": draw.random(200) < 0.8, "block5": draw.random(200) < 0.85}
    curves, rights = [], []
    for place in range(12):
        name = ("head", "block5")[place % 2]
        rights.append(shown[name].astype(float))
        curves.append(trial([rights[-1].mean()], strategy=name))
    (with_images,) = what_mattered(curves, rights, [STRATEGY], Moment(1, 1), CHANCE).effects
    (without,) = what_mattered(curves, None, [STRATEGY], Moment(1, 1), CHANCE).effects
    assert with_images.difference == pytest.approx(without.difference)
    assert without.high - without.low == pytest.approx(0, abs=1e-9)
    spread = (shown["block5"].astype(float) - shown["head"]).std(ddof=1) / 200**0.5
    assert with_images.high - with_images.low == pytest.approx(2 * 1.972 * spread, rel=1e-3)


def test_areas_and_losses_are_said_without_points() -> None:
    found = mattered(grid(), *ALL)
    assert "points" not in said(found, Metric.VAL_AUC)
    nothing = what_mattered(grid(), None, ALL, END, CHANCE, matters=None)
    assert Verdict.NO_DIFFERENCE not in {e.verdict for e in nothing.effects}


@pytest.mark.parametrize("values", [(1e-4, 1e-3), (1e-4,)])
def test_a_list_of_two_has_no_edge(values: tuple[float, ...]) -> None:
    assert list(edges_of({"lr": values[-1]}, [Dimension("lr", Choice(values))])) == []


def test_the_last_of_three_is_an_edge() -> None:
    (edge,) = edges_of({"lr": 1e-2}, [RATES])
    assert (edge.next_low, edge.next_high) == pytest.approx((1e-3, 1e-1))


@pytest.mark.parametrize(
    ("name", "value", "domain", "then"),
    [
        ("dropout", 0.49, Range("uniform", 0.1, 0.5), "try 0.3 to 0.7 next"),
        ("dropout", 0.2, Range("uniform", 0.2, 0.6), "try 0 to 0.4 next"),
        ("dropout", 0.12, Range("uniform", 0.1, 0.5), "try 0 to 0.3 next"),
        ("momentum", 0.98, Range("uniform", 0.8, 0.99), "try 0.9 to 1 next (1 itself is not allowed)"),
        ("lr", 0.002, Range("uniform", 0.001, 0.1), "try 0 to 0.051 next (0 itself is not allowed)"),
        ("batch_size", 64, Range("int", 8, 64), "try 36 to 92 next"),
        ("batch_size", 512, Choice((128, 256, 512)), "try 256 to 1024 next"),
        ("batch_size", 8, Range("int", 8, 64), "try 1 to 36 next"),
        ("warmup_epochs", 3.0, Choice((0, 1, 3)), "try 1.5 to 4.5 next"),
    ],
)  # fmt: skip
def test_the_range_to_try_next_is_moved_by_half_its_width_as_far_as_the_setting_allows(
    name: str, value: float, domain: Choice | Range, then: str
) -> None:
    (edge,) = edges_of({name: value}, [Dimension(name, domain)])
    assert edge.said().endswith(f"so the best value may lie beyond it: {then}")


@pytest.mark.parametrize(
    ("name", "value", "domain"),
    [
        ("dropout", 0.01, Range("uniform", 0.0, 0.5)),
        ("weight_decay", 0.0, Choice((0.0, 1e-4, 1e-3))),
        ("backbone_lr_ratio", 1.0, Range("loguniform", 0.01, 1.0)),
        ("batch_size", 1, Choice((1, 2, 4))),
        ("dropout", 0.3, Range("uniform", 0.0, 0.5)),
    ],
)
def test_where_a_setting_allows_nothing_beyond_there_is_no_edge(
    name: str, value: float, domain: Choice | Range
) -> None:
    assert list(edges_of({name: value}, [Dimension(name, domain)])) == []


def test_curves_rise_only_beyond_their_own_wobble() -> None:
    draw = np.random.default_rng(8)
    wobble = draw.normal(0, 0.004, (300, 4, 8))
    flat = [rise_of(list(0.9 + each)) for each in wobble]
    seen = np.mean([rise is not None and rise.is_seen for rise in flat])
    assert 0.005 < seen < 0.05
    rising = [rise_of(list(0.8 + 0.005 * np.arange(8) + each)) for each in wobble]
    assert np.mean([rise is not None and rise.is_seen for rise in rising]) > 0.8
    assert rise_of([np.array([0.8, 0.9])]) is None


def test_the_joint_test_of_a_model_is_that_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS

    from analysis.findings.effects.model import added_by, without

    draw = np.random.default_rng(9)
    settings = [
        {"strategy": s, "augmentation": a, "lr": 10 ** draw.uniform(-5, -2)}
        for s in ("head", "block5")
        for a in ("none", "flip")
        for _ in range(6)
    ]
    model = model_of(
        settings, terms_of(settings, [STRATEGY, AUGMENTATION, RANGE]), np.ones(len(settings)), True
    )
    values = draw.normal(0, 1, len(settings))
    smaller = without(model, "augmentation")
    weights = added_by(model, smaller)
    assert weights is not None
    witness = OLS(values, model.design).fit().compare_f_test(OLS(values, smaller).fit())
    assert jointly(weights, model.design, values[:, None]).p == pytest.approx(witness[1])


def test_the_picture_has_each_comparison_with_its_interval_in_points() -> None:
    found = mattered(grid(), *ALL)
    figure = effects_plot(found, Metric.VAL_ACCURACY)
    drawn = {
        name: (x, x - below, x + above)
        for trace in figure.data
        for name, x, below, above in zip(
            trace.y, trace.x, trace.error_x.arrayminus, trace.error_x.array, strict=True
        )
    }
    assert len(drawn) == len(found.effects)
    (strategy,) = (e for e in found.effects if e.name == "strategy")
    expected = [100 * value for value in (strategy.difference, strategy.low, strategy.high)]
    assert drawn["strategy: block5 vs. head"] == pytest.approx(expected)
