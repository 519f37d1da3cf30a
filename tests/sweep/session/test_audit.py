"""sweep extend --audit: which pruned trials are run to the end, as what, and what that says of ASHA."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import plots
from analysis.findings.cost import cost_of
from analysis.findings.effects import effects_of
from analysis.findings.pruning import wanted
from analysis.frames import results
from analysis.frames.select import select
from analysis.pages.report import render
from analysis.statistics import wilson
from sweep.on_ray.searcher import RecordSearcher
from sweep.on_ray.workers import Unwritten
from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import HeldRun
from sweep.request.prepare import prepare
from sweep.search.asha import Rungs
from sweep.search.proposals import Proposals, nothing_left
from sweep.search.ranking import Standing, bar, single_winner, standing, to_keep, winner
from sweep.search.study import asked_in_all, recorded, study_of
from sweep.session.audit import _how, draw
from sweep.session.extend import Request, extend
from sweep.session.interruption import Interruption
from sweep.session.rungs import catch_up, decisions
from sweep.session.sessions import open_session
from sweep.show.status import read_status
from tests.support.analysis_runs import copy_of
from tests.support.bench import exhaust
from tests.support.bench import results as result_rows
from tests.support.faces import Faces, sweep_facts
from tests.support.made_runs import create_run, put_back, put_on_record
from trainable.config import TrialConfig
from trainable.data import open_training_data
from trainable.errors import RequestError
from trainable.fit import fit
from trainable.metric import Metric
from trainable.network.model import load_backbone
from trainable.records.files import read_json, write_json
from trainable.records.manifest import read_manifest
from trainable.records.rows import Row, Status, trial_id_of
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

pytestmark = pytest.mark.usefixtures("own_store")
Text = Callable[[pytest.ExceptionInfo[Exception]], str]
EPOCHS = 9
FINISHED = (0.80, 0.81, 0.82, 0.83, 0.84, 0.85)
PRUNED = (0.60, 0.62, 0.64, 0.66, 0.68, 0.70)
"""At epoch 1, where ASHA stopped them."""


def row(epoch: int, value: float) -> Row:
    return Row(epoch, 0.6, 0.7, 0.5, value, 0.7, 0.99, 1e-4, 2.0, 16.0, 0, f"2026-01-0{epoch}")


def train(record: TrialRecord, values: list[float], status: Status = Status.FINISHED) -> None:
    for epoch, value in enumerate(values, start=1):
        record.append(row(epoch, value))
    record.write_status(replace(record.status(), status=status))


@pytest.fixture(scope="module")
def config(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    storage = tmp_path_factory.mktemp("audit") / "runs"
    trial = {"strategy": "full", "lr": {"loguniform": [1e-5, 1e-1]}, "epochs": EPOCHS}
    search = {"method": "random", "trials": len(FINISHED) + len(PRUNED), "seed": 3}
    return check_config(sweep_facts(faces, storage, trial, search=search), {}, "test")


@pytest.fixture(scope="module")
def made(config: SweepConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials that finished, from 0.75 to 0.80 at epoch 1 to 0.05 more; six that were pruned at epoch 1."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_STORE", str(folder / "store"))
        run = create_run(config, prepare(config), ["sweep", "run"])
    open_session(run, session := 1)
    for number in range(config.trials):
        trials = [recorded(record, config.metric) for record in run.trials()]
        proposed = Proposals(config).next(trials)
        assert proposed is not None
        record = TrialRecord.create(run, proposed[1], number, session)
        if number < len(FINISHED):
            train(record, [FINISHED[number] - 0.05] + [FINISHED[number]] * (EPOCHS - 1))
        else:
            train(record, [PRUNED[number - len(FINISHED)]], Status.PRUNED)
    assert nothing_left(run, config)
    return copy_of(run.path, folder / "run")


@pytest.fixture
def run(config: SweepConfig, made: Path) -> RunFolder:
    """As `made`, the test's own."""
    return put_back(made, RunFolder(config.folder))


def ask(run: RunFolder, count: int) -> list[str]:
    return put_on_record(extend(run, Request(audit=count), ["sweep", "extend", "--audit"]))


def audits(run: RunFolder) -> list[TrialRecord]:
    return [record for record in run.trials() if record.asked.origin == "audit"]


def pruned(run: RunFolder) -> dict[str, TrialRecord]:
    return {r.trial_id: r for r in run.trials() if r.status().status is Status.PRUNED}


def search_files(run: RunFolder) -> dict[Path, bytes]:
    """Everything on record of trials of the search."""
    folders = [r.folder for r in run.trials() if r.asked.origin == "search"]
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}


# ---------------------------------------------------------------- which trials


@given(
    st.dictionaries(st.integers(0, 30).map("trial{}".format), st.sampled_from(["a", "b", "c"])),
    st.sets(st.integers(0, 30).map("trial{}".format)),
    st.integers(1, 10),
    st.integers(1, 10),
    st.integers(0, 9),
)
def test_what_is_drawn_in_two_goes_is_what_one_go_draws(
    pruned: dict[str, str], audited: set[str], first: int, second: int, seed: int
) -> None:
    """Also after audits that were drawn in another way, as an earlier version did."""
    before = draw(pruned, audited, first, seed)
    after = draw(pruned, {*audited, *before}, second, seed)
    assert len(before) == min(first, len(set(pruned) - audited))
    assert before + after == draw(pruned, audited, first + second, seed)
    assert {*before, *after} <= set(pruned) - audited and not set(before) & set(after)


@given(
    st.dictionaries(st.integers(0, 30).map("trial{}".format), st.sampled_from(["a", "b", "c"])),
    st.sets(st.integers(0, 30).map("trial{}".format)),
)
def test_as_many_as_are_asked_for_give_each_strategy_six_audits_or_all(
    pruned: dict[str, str], audited: set[str]
) -> None:
    there = Counter(pruned.values())
    before = Counter(pruned[trial_id] for trial_id in audited if trial_id in pruned)
    drawn = draw(pruned, audited, wanted(there, before), 0)
    after = before + Counter(pruned[trial_id] for trial_id in drawn)
    for strategy, count in there.items():
        assert after[strategy] == max(before[strategy], min(6, count))


def test_every_pruned_trial_of_a_strategy_is_as_likely_to_be_drawn_as_any_other() -> None:
    ids = [TrialConfig(lr=10**-n).trial_id for n in range(1, 11)]
    pruned = dict(zip(ids, "aaaaaaabbb", strict=True))
    seeds = 3_000
    drawn = [trial for seed in range(seeds) for trial in draw(pruned, (), 4, seed)]
    for trial, strategy in pruned.items():
        share = 2 / list(pruned.values()).count(strategy)
        deviation = (seeds * share * (1 - share)) ** 0.5
        assert abs(drawn.count(trial) - share * seeds) < 4 * deviation


def test_an_audit_is_a_trial_of_its_own_with_the_settings_of_the_pruned_one(
    run: RunFolder, config: SweepConfig
) -> None:
    before = search_files(run)
    (said,) = ask(run, 3)
    assert said.startswith("3 of 6 pruned trials, drawn at random, run to the end")
    assert len(audits(run)) == 3 and len({r.asked.number for r in run.trials()}) == 15
    for record in audits(run):
        original = pruned(run)[record.asked.audits or ""]
        assert record.asked.settings == original.asked.settings
        named = hashlib.sha256(f"audit of {original.trial_id}".encode()).hexdigest()[:12]
        assert record.trial_id == named == trial_id_of(record.asked.settings, "audit")
        facts = read_json(record.folder / "config.json")
        assert (facts["trial_id"], facts["audits"]) == (named, original.trial_id)
        assert (record.status().status, record.rows()) == (Status.PENDING, [])
    assert search_files(run) == before
    assert "extend" in read_manifest(run).configuration.command
    assert not nothing_left(run, config) and asked_in_all(config, run.trials()) == 15


def test_asked_again_others_are_audited_until_none_is_left(run: RunFolder, refused: Text) -> None:
    ask(run, 4)
    (said,) = ask(run, 4)
    assert said.startswith("2 of 6 pruned trials, drawn at random (fewer than 4 were left)")
    assert {record.asked.audits for record in audits(run)} == set(pruned(run))
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RequestError) as caught:
        ask(run, 1)
    assert "but all 6 were audited" in refused(caught)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("audited", ["000000000000", None])
def test_an_audit_of_another_trial_than_its_settings_say_is_refused(
    run: RunFolder, refused: Text, audited: str | None
) -> None:
    ask(run, 1)
    path = audits(run)[0].folder / "config.json"
    write_json(path, read_json(path) | {"audits": audited})
    with pytest.raises(RequestError) as caught:
        run.trials()
    assert str(path) in refused(caught) and f"audits is {audited!r}" in refused(caught)


def test_a_folder_of_another_origin_is_refused(run: RunFolder, refused: Text) -> None:
    path = next(iter(pruned(run).values())).folder / "config.json"
    facts = read_json(path)
    write_json(path, facts | {"origin": "audit", "audits": facts["trial_id"]})
    with pytest.raises(RequestError) as caught:
        run.trials()
    assert "those of" in refused(caught)


def test_the_first_epochs_of_an_audit_are_those_of_the_pruned_trial_bit_by_bit(
    unchanged: Path, tmp_path: Path
) -> None:
    """Trained for real; the winner keeps its weights, and the audit its predictions alone."""
    run = RunFolder(copy_of(unchanged, tmp_path / "trained"))
    before, kept = search_files(run), select(run.path).winner
    ask(run, 1)
    (audit,) = audits(run)
    recorded = read_manifest(run).settings
    assert recorded is not None
    settings = recorded.model_copy(update={"folder": run.path})
    data = open_training_data(run.split, settings.images, settings.image_size)
    backbone = load_backbone(settings.weights, settings.width)
    rows, outcome = exhaust(fit(audit.asked.settings, settings, data, backbone, audit))
    assert outcome.status is Status.FINISHED and len(rows) == settings.epochs
    audit.write_status(replace(audit.status(), status=outcome.status))
    stopped = pruned(run)[audit.asked.audits or ""].rows()
    assert 0 < len(stopped) < len(rows)
    assert result_rows(audit.rows())[: len(stopped)] == result_rows(stopped)
    assert search_files(run) == before and select(run.path).winner == kept
    assert {path.suffix for path in audit.folder.glob("best-*")} == {".json", ".parquet"}
    assert not audit.last.exists()
    assert "(audit)" in render(run.path)


# ---------------------------------------------------------------- outside the search


def test_audits_enter_neither_search_nor_rungs_and_are_what_is_left_to_do(
    run: RunFolder, config: SweepConfig
) -> None:
    study = study_of(run.path)
    ask(run, 3)
    first, *others = audits(run)
    searcher = RecordSearcher(
        HeldRun(run, config, 1), 9, Unwritten(run, 1, 0, None), Interruption()
    )
    suggested = {searcher.suggest(str(n))["trial_id"] for n in range(3)}
    assert suggested == {record.trial_id for record in audits(run)}
    assert searcher.suggest("3") is None
    train(first, [0.1, 0.2])  # killed, and on record as finished too early: it goes on
    assert not nothing_left(run, config)
    rungs = Rungs([1, 3], 2)
    catch_up(rungs, HeldRun(run, config, 1))
    assert decisions(run) == []
    for epoch in range(3, EPOCHS + 1):
        first.append(row(epoch, 0.99))
    for record in others:
        train(record, [0.99] * EPOCHS)
    assert nothing_left(run, config)
    assert [t.params for t in study_of(run.path).trials] == [t.params for t in study.trials]


def test_an_audit_that_is_better_than_the_winner_does_not_win(
    run: RunFolder, config: SweepConfig
) -> None:
    before, effects = select(run.path), effects_of(run.path)
    history = plots.history(results.trials(run.path), config.metric, ["lr"], None)
    ask(run, 2)
    for record in audits(run):
        train(record, [0.6] + [0.99] * (EPOCHS - 1))
    found = select(run.path)
    assert (found.winner, found.single) == (before.winner, before.single)
    assert found.ranked[0].trial_id in {record.trial_id for record in audits(run)}
    assert before.remarks() == []
    (remark,) = found.remarks()
    assert "is the audit of a pruned trial, and better than the best single trial" in remark
    assert replace(effects_of(run.path), audited=effects.audited) == effects
    frame = results.trials(run.path)
    assert plots.history(frame, config.metric, ["lr"], None) == history
    assert frame["origin"].tolist() == ["search"] * 12 + ["audit"] * 2
    facts = read_status(run.path)
    assert facts["best"]["best"] == 0.85
    assert [t["setting"].endswith("(audit)") for t in facts["trials"]] == [False] * 12 + [True] * 2
    assert facts["trials_asked"] == 14


@given(
    st.lists(st.tuples(st.sampled_from(["search", "replicate", "audit"]), st.floats(0, 1))),
    st.integers(1, 3),
)
def test_nothing_that_is_decided_depends_on_audits(
    values: list[tuple[str, float]], best: int
) -> None:
    found = [
        Standing(f"t{n}", "s", Status.FINISHED, origin, row(1, value), Metric.VAL_ACCURACY)  # type: ignore[arg-type]
        for n, (origin, value) in enumerate(values)
    ]
    others = [each for each in found if each.origin != "audit"]
    assert winner(found) == winner(others) and single_winner(found) == single_winner(others)
    assert bar(found, best) == bar(others, best) and to_keep(found, best) == to_keep(others, best)


def test_an_audit_writes_no_weights_at_its_end(run: RunFolder, config: SweepConfig) -> None:
    """Also before `keep.best` trials have finished, when a trial of the search writes them."""
    ask(run, 1)
    (audit,) = audits(run)
    assert not run.bar.exists()
    for record, stays in ((audit, False), (next(iter(pruned(run).values())), True)):
        assert record.is_wanted(row(1, 0.99), config.metric) is stays
    train(audit, [0.99] * EPOCHS)
    found = standing(audit, config.metric)
    assert found is not None and to_keep([found], 9) == set()


# ---------------------------------------------------------------- what it says of ASHA


def predict(record: TrialRecord, right: list[bool]) -> None:
    """Put validation predictions of its best epoch on record, so many of them right."""
    best = max(record.rows(), key=lambda each: each.val_accuracy)
    labels = [n % 2 for n in range(len(right))]
    logits = [1.0 if label == hit else -1.0 for label, hit in zip(labels, right, strict=True)]
    frame = pd.DataFrame({"file": map(str, labels), "label": labels, "logit": logits})
    frame.to_parquet(record.folder / f"best-{best.epoch}.parquet")


def test_the_cost_says_how_many_audited_trials_ended_better(run: RunFolder) -> None:
    assert cost_of(run.path).pruning.audit is None
    ask(run, 4)
    winning, close, diverged, _ = audits(run)
    train(winning, [0.6, 0.7] + [0.856] * (EPOCHS - 2))
    train(close, [0.6, 0.7] + [0.8549] * (EPOCHS - 2))
    train(diverged, [0.6, 0.9], Status.DIVERGED)
    found = cost_of(run.path).pruning
    assert found.audit is not None
    assert (found.audit.pruned, found.audit.ended, found.audit.missing) == (6, 3, 1)
    assert dict(found.audit.better) == {winning.asked.audits: pytest.approx(0.006)}
    assert found.audit.ahead == 1
    (full,) = found.strategies
    assert (full.strategy, full.trials, full.stopped, full.finished) == ("full", 12, {1: 6}, 6)
    assert (full.pruned, full.audits, full.ended, full.better) == (6, 4, 3, 1)
    assert full.interval == replace(wilson(1, 3), low=1 / 6, high=4 / 6), "the other three are open"
    said = list(found.said())
    assert said[0] == "of 12 full trials, ASHA stopped 6 at epoch 1, 6 ran to the end and learned"
    assert (
        "of 6 pruned full trials, 3 ran to the end in audits, 1 of them better than the best"
        in said[1]
    )
    assert "95 % confidence interval of the share among all pruned trials" in said[1]
    assert any("1 audit without a result" in s for s in said)
    (warning,) = found.warnings()
    assert (
        f"({winning.asked.audits}, +0.60" in warning and "grace_period looks too short" in warning
    )
    facts = cost_of(run.path).to_json()
    assert dict(facts["audit"]["better"]) == dict(found.audit.better)
    assert [each["strategy"] for each in facts["strategies"]] == ["full"]


@pytest.mark.parametrize(("lost", "better"), [(30, 0), (0, 1)])
def test_where_there_are_predictions_mcnemar_decides_too(
    run: RunFolder, lost: int, better: int
) -> None:
    """One point ahead on 1,000 images: 40 against 30 can't be told apart, 10 against none can."""
    ask(run, 3)
    first, *others = audits(run)
    train(first, [0.6] + [0.86] * (EPOCHS - 1))
    for record in others:
        train(record, [0.6] + [0.8] * (EPOCHS - 1))
    single = select(run.path).single
    assert single is not None
    predict(run.trial(single.trial_id), [True] * 850 + [False] * 150)
    predict(first, [False] * lost + [True] * 860 + [False] * (140 - lost))
    found = cost_of(run.path).pruning
    assert found.audit is not None
    assert (len(found.audit.better), found.audit.ahead) == (better, 1 - better)
    assert any("grace_period" in warning for warning in found.warnings()) is bool(better)


def test_an_audit_that_found_nothing_warns_of_nothing(run: RunFolder) -> None:
    ask(run, 6)
    for record in audits(run):
        (stopped,) = pruned(run)[record.asked.audits or ""].rows()
        train(record, [stopped.val_accuracy] + [stopped.val_accuracy + 0.05] * (EPOCHS - 1))
    found = cost_of(run.path).pruning
    assert found.audit is not None and found.audit.better == {} and found.audit.ahead == 0
    assert found.strategies[0].interval is None, "all are known: nothing is estimated"
    assert "6 ran to the end in audits, none of them better" in " ".join(found.said())
    assert list(found.warnings()) == []


def test_without_audits_it_is_said_that_nobody_knows(run: RunFolder) -> None:
    found = cost_of(run.path).pruning
    assert (
        "so ASHA may have stopped a better one: `sweep extend RUN --audit 6` checks a sample"
        in (" ".join(found.said()))
    )
    assert list(found.warnings()) == []


@pytest.mark.parametrize("how", ["failed", "flat"])
def test_a_strategy_of_which_no_trial_that_learned_ran_to_the_end_is_a_warning(
    run: RunFolder, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that shows no order of the classes, on images enough for one, did not finish well."""
    monkeypatch.setattr("analysis.findings.pruning.validation_classes", lambda run: (100, 100))
    for record in run.trials():
        if record.status().status is Status.FINISHED and how == "failed":
            record.write_status(replace(record.status(), status=Status.FAILED))
        elif record.status().status is Status.FINISHED:
            lines = [json.dumps(each.to_json() | {"val_auc": 0.5}) for each in record.rows()]
            (record.folder / "epochs.jsonl").write_text("".join(f"{line}\n" for line in lines))
    found = cost_of(run.path).pruning
    (full,) = found.strategies
    assert (full.finished, full.flat) == (0, 6 if how == "flat" else 0)
    (warning,) = found.warnings()
    assert "it is not known how full would have ended: `sweep extend RUN --audit 6` runs" in warning
    assert how == "flat" or "it is not known how full would have ended" in render(run.path)
    ask(run, 6)
    (warning,) = cost_of(run.path).pruning.warnings()
    assert warning.endswith("its audits will show it")
    for record in audits(run):
        train(record, [0.6] + [0.7] * (EPOCHS - 1))
    assert list(cost_of(run.path).pruning.warnings()) == []


def test_what_was_drawn_is_told_by_strategy_where_there_are_several() -> None:
    strategies = {"a": "head", "b": "head", "c": "full"}
    assert _how(["a", "c"], strategies, 2) == (
        "drawn at random within each strategy (1 full, 1 head)"
    )
    assert _how(["a", "b", "c"], strategies, 5) == (
        "drawn at random within each strategy (fewer than 5 were left; 1 full, 2 head)"
    )
    assert _how(["a"], {"a": "head"}, 1) == "drawn at random"
