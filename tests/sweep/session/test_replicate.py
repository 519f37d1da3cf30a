"""The best settings with other seeds: no part of the search, and what decides between settings."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from analysis.findings.finalists import compare_finalists
from analysis.findings.replicates import compare_replicates
from analysis.findings.runs import compare
from analysis.frames.select import select
from analysis.frames.snapshot import Snapshot
from analysis.pages.report import render
from analysis.show import read_results
from analysis.statistics import between, mean_of, superiority, welch
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import HeldRun
from sweep.request.prepare import prepare
from sweep.search.asha import Rungs
from sweep.search.proposals import Proposals, nothing_left
from sweep.search.ranking import Standing, replicates, single_winner, to_keep, winner
from sweep.search.study import asked_in_all, recorded
from sweep.session.replicate import replicate
from sweep.session.rungs import catch_up
from sweep.session.sessions import open_session
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run, put_on_record
from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.metric import Metric
from trainable.records.manifest import read_manifest
from trainable.records.rows import Row, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

Text = Callable[[pytest.ExceptionInfo[Exception]], str]
EPOCHS = 2
VALUES = {1e-4: 0.80, 1e-3: 0.90, 3e-3: 0.89}


def row(epoch: int, value: float) -> Row:
    return Row(
        epoch,
        0.6,
        0.7,
        0.5,
        value,
        0.7,
        0.8,
        1e-4,
        1.5,
        16.0,
        0,
        f"2026-01-01T00:00:{epoch:02d}+00:00",
    )


def train(record: TrialRecord, value: float, status: Status = Status.FINISHED) -> None:
    for epoch in range(1, EPOCHS + 1):
        record.append(row(epoch, value))
    record.write_status(replace(record.status(), status=status))


@pytest.fixture
def config(faces: Faces, tmp_path: Path, own_store: Path) -> SweepConfig:
    trial = {"strategy": "full", "lr": list(VALUES), "epochs": EPOCHS}
    return check_config(sweep_facts(faces, tmp_path / "runs", trial), {}, "test")


@pytest.fixture
def run(config: SweepConfig) -> RunFolder:
    """Three settings, finished."""
    run = create_run(config, prepare(config), ["sweep", "run"])
    open_session(run, session := 1)
    trials = Proposals(config)
    while proposed := trials.next([recorded(r, config.metric) for r in run.trials()]):
        number, settings = proposed
        train(TrialRecord.create(run, settings, number, session), VALUES[settings.lr])
    return run


def of(run: RunFolder, lr: float, origin: str = "replicate") -> list[TrialRecord]:
    return [
        record
        for record in run.trials()
        if record.asked.settings.lr == lr and record.asked.origin == origin
    ]


def test_the_best_settings_come_again_with_seeds_of_their_own(
    run: RunFolder, config: SweepConfig
) -> None:
    assert nothing_left(run, config)
    put_on_record(replicate(run, top=2, seeds=3, command=["sweep", "replicate"]))
    assert not nothing_left(run, config)
    assert [len(of(run, lr)) for lr in VALUES] == [0, 3, 3]
    for lr in (1e-3, 3e-3):
        (original,) = of(run, lr, "search")
        seeds = {record.asked.settings.seed for record in of(run, lr)}
        assert seeds == {1, 2, 3}
        for record in of(run, lr):
            assert record.asked.settings.setting_id == original.asked.settings.setting_id
            assert record.status().status is Status.PENDING
    assert asked_in_all(config, run.trials()) == 9
    assert [asked.command[1] for asked in read_manifest(run).configurations] == ["run", "replicate"]


def test_asked_again_only_what_is_missing_is_added_and_nothing_twice(
    run: RunFolder, refused: Text
) -> None:
    put_on_record(replicate(run, 1, 2, []))
    before = {record.trial_id for record in run.trials()}
    put_on_record(replicate(run, 1, 4, []))
    added = {record.trial_id for record in run.trials()} - before
    assert len(added) == 2 and len(of(run, 1e-3)) == 4
    with pytest.raises(RequestError) as caught:
        put_on_record(replicate(run, 1, 3, []))
    assert "all of them are on record" in refused(caught)


def test_without_a_finished_trial_there_is_nothing_to_replicate(
    run: RunFolder, refused: Text
) -> None:
    for record in run.trials():
        record.write_status(replace(record.status(), status=Status.PRUNED))
    with pytest.raises(RequestError) as caught:
        put_on_record(replicate(run, 3, 5, []))
    assert "needs a trial that has finished" in refused(caught)


def test_replicates_enter_neither_search_nor_rungs(run: RunFolder, config: SweepConfig) -> None:
    put_on_record(replicate(run, 2, 2, []))
    for record in of(run, 1e-3):
        train(record, 0.1)
    rungs = Rungs([1], 2)
    catch_up(rungs, HeldRun(run, config, 1))
    assert set(rungs.recorded[1]) <= {
        r.trial_id for r in run.trials() if r.asked.origin == "search"
    }
    for record in of(run, 3e-3):
        train(record, 0.9)
    assert nothing_left(run, config)
    wider = config.model_copy(update={"trial": config.trial | {"lr": [*VALUES, 1e-2]}})
    assert not nothing_left(run, check_config(wider.model_dump(mode="json"), {}, "test"))


def test_the_setting_with_the_best_mean_wins_without_the_run_that_made_it_stand_out(
    run: RunFolder, config: SweepConfig
) -> None:
    put_on_record(replicate(run, 2, 3, []))
    for record, value in zip(of(run, 1e-3), (0.84, 0.85, 0.86), strict=True):
        train(record, value)
    for record, value in zip(of(run, 3e-3), (0.86, 0.88, 0.87), strict=True):
        train(record, value)
    found = select(run.path)
    assert found.single is not None and found.winner is not None
    assert found.single.trial_id == of(run, 1e-3, "search")[0].trial_id, "0.90, by luck"
    assert found.winner.trial_id == of(run, 3e-3)[1].trial_id, "0.88, of the better setting"
    assert any("the best single trial of the search is" in remark for remark in found.remarks())

    said = compare_replicates(run.path)
    assert [each.mean.mean for each in said.each if each.mean] == pytest.approx([0.87, 0.85])
    first, *_ = said.said()
    assert "lr 0.003 and lr 0.001 do not differ significantly" in first or "beats" in first
    assert any("had a different setting" in sentence for sentence in said.said())


def test_a_setting_is_judged_by_its_collapses_too(run: RunFolder, config: SweepConfig) -> None:
    put_on_record(replicate(run, 2, 2, []))
    for lr, values in ((1e-3, (0.95, 0.58)), (3e-3, (0.88, 0.87))):
        for record, value in zip(of(run, lr), values, strict=True):
            train(record, value, Status.COLLAPSED if value < 0.6 else Status.FINISHED)
    found = select(run.path).winner
    assert found is not None and found.trial_id == of(run, 3e-3)[0].trial_id


def test_replicates_that_collapsed_are_counted_apart_and_in_no_mean(
    run: RunFolder, config: SweepConfig
) -> None:
    put_on_record(replicate(run, 2, 3, []))
    for lr, values in ((1e-3, (0.95, 0.94, 0.58)), (3e-3, (0.88, 0.87, 0.875))):
        for record, value in zip(of(run, lr), values, strict=True):
            train(record, value, Status.COLLAPSED if value < 0.6 else Status.FINISHED)
    found = compare_replicates(run.path)
    first, second = found.each
    assert first.mean is not None and first.mean.mean == pytest.approx(0.945)
    assert (len(first.trial_ids), len(first.not_learned)) == (2, 1)
    assert second.versus is not None and second.versus.difference.difference == pytest.approx(0.07)
    assert second.versus.ahead.share == pytest.approx(6 / 9), (
        "the collapsed one is behind all three"
    )
    assert any("1 of 3 replicates did not learn" in sentence for sentence in found.said())
    selection = select(run.path)
    assert selection.winner is not None and selection.winner.score == 0.95
    assert "replicates" in selection.ground_said()


def test_a_setting_of_which_one_replicate_learned_has_no_mean_and_does_not_win(
    run: RunFolder, config: SweepConfig
) -> None:
    put_on_record(replicate(run, 1, 2, []))
    for record, status in zip(of(run, 1e-3), (Status.FINISHED, Status.COLLAPSED), strict=True):
        train(record, 0.95, status)
    (only,) = compare_replicates(run.path).each
    assert only.mean is None and only.versus is None
    selection = select(run.path)
    assert selection.winner == selection.single and selection.ground == "single runs"


def test_every_command_names_the_same_winner_and_its_ground(
    run: RunFolder, config: SweepConfig
) -> None:
    put_on_record(replicate(run, 2, 2, []))
    for lr, values in ((1e-3, (0.84, 0.85)), (3e-3, (0.86, 0.88))):
        for record, value in zip(of(run, lr), values, strict=True):
            train(record, value)
    won = select(run.path).winner
    assert won is not None and won.origin == "replicate"
    for record in run.trials():
        predict_all_right(run, record)
    read = Snapshot.of(run.path)
    finalists = compare_finalists(read, 5)
    assert finalists.each[0].trial_id == won.trial_id == read_results(read)["winner"]
    assert compare([read])["winner"].item() == won.trial_id
    assert compare([read])["winner_ground"].item() == "replicates"
    assert next(finalists.said()).startswith(f"the winner is {won.trial_id}, chosen by rep")
    assert f"The winner, chosen by replicates, is trial {won.trial_id}" in render(read)


def predict_all_right(run: RunFolder, record: TrialRecord) -> None:
    split = pd.read_parquet(run.split)
    split = split[split["part"] == "validation"]
    best = max(record.rows(), key=lambda row: (row.val_accuracy, -row.epoch)).epoch
    frame = split[["file", "label"]].assign(logit=split["label"] * 2.0 - 1)
    frame.to_parquet(record.folder / f"best-{best}.parquet", index=False)


def standings(values: Sequence[tuple[str, str, float]]) -> list[Standing]:
    """(setting, origin, value) as finished standings."""
    return [
        Standing(f"t{n}", setting, Status.FINISHED, origin, row(1, value), Metric.VAL_ACCURACY)  # type: ignore[arg-type]
        for n, (setting, origin, value) in enumerate(values)
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["search", "replicate"]), st.floats(0, 1)
        ),
        max_size=20,
    ),
    st.integers(1, 4),
)
def test_what_wins_is_kept(values: list[tuple[str, str, float]], best: int) -> None:
    found = standings(values)
    kept = to_keep(found, best)
    won, single = winner(found), single_winner(found)
    assert won is None or won.trial_id in kept
    assert single is None or single.trial_id in kept
    assert len(kept) <= best + len({s.setting_id for s in found if s.origin == "replicate"})
    if not replicates(found):
        assert won == single


def test_another_seed_is_the_same_setting_and_another_trial() -> None:
    one = TrialConfig(lr=1e-3)
    assert one.trial_id != one.with_seed(1).trial_id
    assert one.with_seed(1).setting_id == one.setting_id == one.trial_id
    assert one.with_seed(0) == one
    assert one.with_seed(1).setting_id != TrialConfig(lr=2e-3).setting_id


def test_a_mean_and_a_difference_come_with_the_textbooks_intervals() -> None:
    """Student's sleep data: the drugs' extra hours of sleep, mean 0.75 and 2.33 (R's t.test gives the rest)."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = mean_of(np.array(first)[:, None])
    assert found.mean == pytest.approx(0.75)
    assert (found.interval.low, found.interval.high) == pytest.approx((-0.5297804, 2.0297804))
    against = welch(first, second)
    assert against.p == pytest.approx(0.07939, abs=1e-5)
    assert (against.interval.low, against.interval.high) == pytest.approx((-3.3654832, 0.2054832))


def test_the_interval_of_a_mean_of_shares_ends_at_all_of_them() -> None:
    found = mean_of(np.array([[0.94], [0.99]]), (0, 1)).interval
    uncut = mean_of(np.array([[0.94], [0.99]])).interval
    assert found.high == 1 < uncut.high and found.low == uncut.low and "cut off" in found.method


def test_seeds_on_the_same_images_are_compared_with_the_error_of_the_images() -> None:
    """Two equal settings that differ on these images: what each finds hard is the same for all of its seeds."""
    draw, alone, found = np.random.default_rng(0), 0, 0
    for _ in range(150):
        hard = draw.normal(0, 0.4, (2, 1, 200)) + draw.normal(0, 1, 200)
        right = (hard + draw.normal(0, 0.3, (2, 5, 200)) < 1.4).astype(float)
        found += between(*right)[0].p < 0.05
        alone += welch(*right.mean(axis=2)).p < 0.05
    assert found <= 12 and alone >= 25


def test_how_often_one_comes_out_ahead_is_mann_and_whitneys_share() -> None:
    first, second = [0.9, 0.92, 0.95], [0.88, 0.92, -np.inf]
    expected = mannwhitneyu(first, second).statistic / 9
    assert superiority(first, second).share == pytest.approx(expected) == 7.5 / 9
    never = superiority([1.0] * 5, [2.0] * 5).interval
    always = superiority([2.0] * 5, [1.0] * 5).interval
    assert (always.low, always.high) == (pytest.approx(0.65, abs=0.01), 1)
    assert (never.low, never.high) == (0, pytest.approx(1 - always.low))


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0])
def test_the_interval_of_coming_out_ahead_holds_the_truth(apart: float) -> None:
    draw, truth, held = np.random.default_rng(0), norm.cdf(apart / 2**0.5), 0
    for _ in range(400):
        first, second = draw.normal(apart, 1, 5).tolist(), draw.normal(0, 1, 5).tolist()
        interval = superiority(first, second).interval
        held += interval.low <= truth <= interval.high
    assert held / 400 > 0.92


def test_runs_without_spread_differ_or_do_not() -> None:
    assert welch([0.9, 0.9], [0.8, 0.8]).p == 0
    assert welch([0.9, 0.9], [0.9, 0.9]).p == 1
