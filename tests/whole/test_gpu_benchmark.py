"""The GPU benchmark's runner and its sums; its experiments themselves are held in tests/gpu."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import run_stage
from benchmarks.gpu_stages.bench import ALL_DIGITS, digits
from benchmarks.gpu_stages.computed import (
    CASES,
    Measured,
    computed,
    plain_total,
    total,
    turnover_seconds,
    warming_seconds,
)
from benchmarks.gpu_stages.drawing import parts
from benchmarks.gpu_stages.job import Job
from benchmarks.gpu_stages.plan import DRAWING, LONGEST, STAGES, WHOLE, Stage, allowed, chosen
from benchmarks.gpu_stages.speed import kind_of
from tests.support.project import ROOT

MIXED12, MIXED8, HEAD24 = CASES


def job_in(folder: Path) -> Job:
    return Job("cpu", folder, 4, 2, 2, 32, 0.05, "16", 1)


# ---------------------------------------------------------------- time


def test_the_stages_and_the_drawing_fit_into_the_whole_time() -> None:
    assert DRAWING.seconds + sum(stage.seconds for stage in STAGES) <= WHOLE == 600
    assert all(stage.seconds <= LONGEST for stage in STAGES)


@given(st.lists(st.floats(0, 1), min_size=len(STAGES), max_size=len(STAGES)))
def test_however_long_stages_take_none_starves_and_the_whole_time_is_kept(
    used: list[float],
) -> None:
    left = WHOLE - DRAWING.seconds
    for number, (stage, share) in enumerate(zip(STAGES, used, strict=True), start=1):
        seconds = allowed(stage, STAGES[number:], left)
        assert stage.seconds <= seconds <= LONGEST
        left -= share * seconds
    assert left >= 0


def test_a_stage_for_which_too_little_time_is_left_is_skipped() -> None:
    assert allowed(STAGES[-1], [], 5.0) == 0
    assert allowed(STAGES[-1], [], 20.0) == 20.0


def test_what_a_stage_leaves_over_goes_to_the_next() -> None:
    first, second = Stage("a", "", 20), Stage("b", "", 30)
    assert allowed(first, [second], 50) == 20
    assert allowed(second, [], 45) == 45
    assert allowed(second, [], 500) == LONGEST


def test_an_unknown_stage_is_refused_with_the_known_ones() -> None:
    assert [stage.name for stage in chosen("steps, tiny")] == ["tiny", "steps"]
    with pytest.raises(ValueError, match=r"environment, tiny.* but it names tyny"):
        chosen("tyny")


# ---------------------------------------------------------------- running


@pytest.mark.whole
def test_a_stage_runs_in_a_process_of_its_own_and_leaves_figures_without_being_installed(
    tmp_path: Path,
) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu.py"),
        "--out",
        str(tmp_path / "o.json"),
    ]
    sizes = {"--device": "cpu", "--images": "4", "--validation": "2", "--test": "2"}
    small = {"--image-size": "32", "--width": "0.05", "--only": "environment", "--patience": "3"}
    words = [word for pair in (sizes | small).items() for word in pair]
    ended = subprocess.run(
        [*command, *words, "--folder", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "o.json").read_text())
    assert {name: facts["status"] for name, facts in found["stages"].items()} == {
        "drawing": "ok",
        "environment": "ok",
    }
    assert found["stages"]["environment"]["figures"]["device"]["device"] == "cpu"
    assert "environment: ok" in ended.stdout and "s left" in ended.stdout
    assert not list(tmp_path.glob("gpu-*")), "its folder is gone"


@pytest.mark.whole
def test_where_there_is_no_gpu_it_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path / "o.json")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert ended.returncode == 2 and "there is none" in ended.stdout


def test_a_stage_that_fails_is_on_record_with_the_end_of_what_it_said(tmp_path: Path) -> None:
    found = run_stage(Stage("bad", "drawing:no_such_function", 60), job_in(tmp_path), 60)
    assert found["status"] == "failed" and "no_such_function" in found["error"]


def test_a_stage_that_takes_too_long_is_ended_and_keeps_what_it_had_noted(tmp_path: Path) -> None:
    (tmp_path / "late.json").write_text('{"so far": 1}')
    found = run_stage(Stage("late", "drawing:draw", 60), job_in(tmp_path), 0.01)
    assert (found["status"], found["figures"]) == ("timed out", {"so far": 1})
    here = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _mentions(p, str(tmp_path))]
    assert not here


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


@given(st.integers(1, 200))
def test_fewer_drawn_images_are_parted_as_all_would_have_been(drawn: int) -> None:
    training, validation, test = parts(drawn, 160, 20, 20)
    assert training + validation + test == drawn
    assert abs(validation - drawn / 10) <= 1 and validation == test
    assert training >= validation


# ---------------------------------------------------------------- sums

KINDS = [(s, a) for s in ("head", "block5") for a in ("none", "flip", "flip_jitter")]
ONES = Measured(
    start=0.0,
    fill={"head": 0.0, "block5": 0.0},
    first=dict.fromkeys(KINDS, 1.0),
    again=dict.fromkeys(KINDS, 1.0),
    turnover=0.0,
    warming=0.0,
    end=0.0,
)


def test_a_total_is_the_sum_of_its_terms() -> None:
    measured = replace(
        ONES, start=20, turnover=1.0, warming=0.5, end=3, fill={"head": 2, "block5": 8}
    )
    terms = total(MIXED12, measured)
    seconds = terms.pop("seconds")
    assert seconds == pytest.approx(list(accumulate(terms.values()))[-1])
    assert seconds == pytest.approx(20 + 12 * 10 + 12 * 1.5 + 3 + 10)


@pytest.mark.parametrize(("case", "trials"), [(MIXED12, 12), (MIXED8, 8), (HEAD24, 24)])
def test_each_epoch_of_each_trial_is_counted_once(case: object, trials: int) -> None:
    assert total(case, ONES)["seconds"] == pytest.approx(10 * trials)  # type: ignore[arg-type]


def test_jittered_views_are_paid_for_by_the_first_trial_of_a_strategy() -> None:
    dear = {kind: 5.0 if kind[1] == "flip_jitter" else 1.0 for kind in KINDS}
    assert total(MIXED12, replace(ONES, first=dear))["seconds"] == pytest.approx(120 + 2 * 10 * 4)


def test_the_plain_script_does_the_same_work_for_every_trial() -> None:
    found = plain_total(MIXED12, 20, {"head flip": 10.0, "block5 flip": 12.0}, 2)
    assert found["seconds"] == pytest.approx(20 + 120 * 11 / 2)


def test_turnover_is_what_of_a_slots_time_is_no_epoch() -> None:
    trials = [
        {"slot": "a", "started": 0.0, "ended": 7.0, "epoch_seconds": [2.0, 4.0]},
        {"slot": "a", "started": 7.5, "ended": 14.5, "epoch_seconds": [3.0, 3.0]},
        {"slot": "b", "started": 0.0, "ended": 4.0, "epoch_seconds": [3.0]},
    ]
    assert turnover_seconds(trials) == pytest.approx(1 + 0.5)


def test_warming_up_is_told_from_filling() -> None:
    """Who comes first with a strategy fills the store."""
    trials = [
        {"setting": {"strategy": strategy}, "started": start, "epoch_seconds": seconds}
        for strategy, start, seconds in (
            ("head", 3.0, [1.5, 1.0, 1.0]),
            ("head", 0.0, [90.0, 1.0, 1.0]),
            ("block5", 6.0, [40.0, 2.0, 2.0]),
            ("block5", 9.0, [2.3, 2.0, 2.0]),
        )
    ]
    assert warming_seconds(trials) == pytest.approx(0.4)


def test_what_was_not_measured_is_said_and_never_zero() -> None:
    found = computed({})
    for case in CASES:
        assert set(found[case.name]) == {"ours_lacks", "plain_lacks"}


def test_totals_come_from_the_stages_figures() -> None:
    def epochs(seconds: float) -> dict[str, object]:
        return {"epoch_seconds": [9.0, seconds, seconds]}

    names = [f"{s} {a}" for s in ("head", "block5") for a in ("none", "flip")]
    jitter = [f"{s} flip_jitter {turn}" for s in ("head", "block5") for turn in ("first", "again")]
    figures = {name: epochs(2.0) for name in names + jitter} | {"head flip 512-64": epochs(0.5)}
    stages = {
        "epochs": figures,
        "fill": {f"fill {s}": {"fill_seconds": 4.0} for s in ("head", "block5")},
        "sweep": {
            "start_seconds": 18.0,
            "turnover_seconds": 0.8,
            "warming_seconds": 0.2,
            "end_seconds": 2.0,
        },
        "plain": {
            "start_seconds": 10.0,
            "concurrent": 2,
            "epoch_seconds": {"head flip": [9.0, 11.0]},
        },
    }
    found = computed({name: {"figures": each} for name, each in stages.items()})
    ours = 18 + 2 + 8 + 120 * 2 + 12
    assert found["12 trials × 10 epochs"]["ours"]["seconds"] == pytest.approx(ours)
    assert found["12 trials × 10 epochs"]["ratio"] == pytest.approx((10 + 120 * 5.5) / ours)
    small = found["24 trials of 512-64 × 10 epochs"]["ours"]
    assert small["seconds"] == pytest.approx(18 + 2 + 8 + 240 * 0.5 + 24)


# ---------------------------------------------------------------- witnesses


def test_digits_in_common() -> None:
    assert digits([0.25, 1.0], [0.25, 1.0]) == ALL_DIGITS
    assert digits([0.9029], [0.9028]) == pytest.approx(4, abs=0.1)
    assert digits([1.0], [1.0, 2.0]) == 0
    assert digits([1.0, math.nan], [1.0, 1.0]) == 0


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<...FusedAdam...>",
            "adam",
        ),
        ("nvjet_hsh_128x64_64x4_2x1_v_bz_coopA_NNT", "gemm"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "gemm"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("void at::native::elementwise_kernel<direct_copy_kernel_cuda>", "casts and copies"),
        ("void at::native::index_elementwise_kernel<128, 4>", "gather and scatter"),
        ("void at::native::fused_dropout_kernel_vec", "dropout and random"),
        ("void at::native::reduce_kernel<512, 1>", "rest"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
