"""What nodes' devices allow: the number format of a run, and whether it may go on on them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.resources.devices import device_remarks, gpus_of, kinds, precision_on, refuse_device
from trainable.config import RunSettings
from trainable.errors import RequestError
from trainable.hardware.device import device_of


def gpu(name: str, *capability: int, host: str = "n1") -> dict[str, Any]:
    return {"hosts": [host], "device": name, "capability": list(capability)}


H200, T4 = gpu("NVIDIA H200", 9, 0), gpu("Tesla T4", 7, 5, host="n2")
capabilities = st.tuples(st.sampled_from([7, 8, 9, 12]), st.sampled_from([0, 5, 6, 9]))


@given(st.lists(capabilities, max_size=4))
def test_the_number_format_is_one_that_every_gpu_computes_in_by_itself(
    found: list[tuple[int, int]],
) -> None:
    gpus = [gpu(f"GPU {n}", *capability) for n, capability in enumerate(found)]
    chosen = precision_on(gpus, "auto")
    if not gpus:
        assert chosen == "float32"
    elif all(capability >= (8, 0) for capability in found):
        assert chosen == "bfloat16"
    else:
        assert chosen == "float16"
    assert precision_on(gpus, chosen) == chosen, "what auto takes may be asked for"
    assert precision_on(gpus, "float32") == "float32"


def test_emulated_bfloat16_and_float16_on_cpus_are_refused_with_the_remedy(refused: Any) -> None:
    with pytest.raises(RequestError) as caught:
        precision_on([H200, T4], "bfloat16")
    line = refused(caught)
    for words in ("8.0 or more", "n2 has a Tesla T4 (7.5)", "emulates", "use auto or float16"):
        assert words in line
    with pytest.raises(RequestError) as caught:
        precision_on([], "float16")
    assert "use auto or float32" in refused(caught)
    assert precision_on([], "bfloat16") == "bfloat16", "as before: the user's own choice"


def settings(**changed: Any) -> RunSettings:
    facts = {"image_size": 32, "weights": "none", "width": 1.0, "epochs": 1}
    return RunSettings(folder=Path("runs/smile"), images=Path("faces"), **facts | changed)


def test_a_run_goes_on_on_any_gpu_that_has_its_number_format(refused: Any) -> None:
    for precision in ("float32", "float16"):
        refuse_device(settings(device="cuda", precision=precision), [T4])
    refuse_device(settings(device="cuda", precision="bfloat16"), [gpu("NVIDIA A100", 8, 0)])
    with pytest.raises(RequestError) as caught:
        refuse_device(settings(device="cuda", precision="bfloat16"), [H200, T4])
    assert "resume it on newer ones" in refused(caught)


def test_a_run_that_was_begun_on_gpus_says_what_to_do_where_there_is_none(refused: Any) -> None:
    with pytest.raises(RequestError) as caught:
        refuse_device(settings(device="cuda"), [])
    line = refused(caught)
    assert "began on GPUs" in line and "resume it where there is one" in line
    assert "sweep run runs/smile/sweep.yaml name=smile-cpu" in line
    refuse_device(settings(device="cpu"), [])
    refuse_device(settings(device="cpu"), [H200])


def test_other_gpus_than_before_and_unequal_ones_are_said() -> None:
    assert device_remarks([H200], []) == device_remarks([H200], [H200]) == []
    (line,) = device_remarks([T4], [H200])
    assert "began on NVIDIA H200 and continues on Tesla T4" in line
    (line,) = device_remarks([H200, T4], [])
    assert "NVIDIA H200 (9.0), Tesla T4 (7.5)" in line


def test_nodes_with_the_same_device_are_one_kind() -> None:
    cpu = device_of("cpu").facts()
    looks = [
        {"host": host, "device": facts}
        for host, facts in (("a", cpu), ("b", {"device": "T4", "capability": [7, 5]}), ("c", cpu))
    ]
    found = kinds(looks)
    assert [kind["hosts"] for kind in found] == [["a", "c"], ["b"]]
    assert [each["device"] for each in gpus_of(found)] == ["T4"]
