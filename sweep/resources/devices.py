"""What the nodes' devices allow: number format, and whether a run can continue. Pure: facts in, answer out."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainable.config import Precision, RunSettings
from trainable.errors import RequestError
from trainable.hardware.device import BFLOAT16_SINCE, half_of

Facts = Mapping[str, Any]
"""A node's device, as trainable.hardware.device describes it, with its `hosts`."""


def kinds(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every kind of device that nodes have, with the hosts that have it."""
    found: list[dict[str, Any]] = []
    for look in looks:
        same = [kind for kind in found if look["device"].items() <= kind.items()]
        if same:
            same[0]["hosts"].append(look["host"])
        else:
            found.append({"hosts": [look["host"]], **look["device"]})
    return found


def gpus_of(devices: Sequence[Facts]) -> list[Facts]:
    """Those that are GPUs."""
    return [facts for facts in devices if "capability" in facts]


def precision_on(gpus: Sequence[Facts], asked: str) -> Precision:
    """The number format of a run on these GPUs, or on CPUs without any: `asked`, or the best that all support.

    Raises:
        RequestError: a GPU only emulates bfloat16, or float16 is asked for on CPUs.
    """
    old = [facts for facts in gpus if half_of(_capability(facts)) != "bfloat16"]
    match asked:
        case "auto":
            return "float32" if not gpus else "float16" if old else "bfloat16"
        case "bfloat16":
            if old:
                raise RequestError(
                    "resources.precision: bfloat16 needs GPUs of compute capability "
                    f"{_dotted(BFLOAT16_SINCE)} or more, but {_named(old[0])}, which only emulates it; "
                    "use auto or float16"
                )
            return "bfloat16"
        case "float16":
            if not gpus:
                raise RequestError(
                    "resources.precision: float16 needs GPUs, but trials get none here, and CPUs are slow in it; "
                    "use auto or float32, or give trials a GPU by resources.gpus_per_trial"
                )
            return "float16"
        case _:
            return "float32"


def refuse_device(run: RunSettings, gpus: Sequence[Facts]) -> None:
    """Check that a run with these settings can continue on these GPUs.

    Raises:
        RequestError: it began on GPUs and there are none, or one only emulates its number format.
    """
    if run.device != "cuda":
        return
    if not gpus:
        raise RequestError(
            f"{run.folder} began on GPUs and can continue on any kind of GPU, but there is none here; resume it where "
            f"there is one, or start again on CPUs: sweep run {run.folder}/sweep.yaml name={run.folder.name}-cpu"
        )
    old = [facts for facts in gpus if half_of(_capability(facts)) != "bfloat16"]
    if run.precision == "bfloat16" and old:
        raise RequestError(
            f"{run.folder} began in bfloat16 and needs GPUs of compute capability {_dotted(BFLOAT16_SINCE)} or "
            f"more to continue, but {_named(old[0])}, which only emulates it; resume it on newer ones"
        )


def device_remarks(gpus: Sequence[Facts], before: Sequence[Facts]) -> list[str]:
    """Lines of what the user should know about the GPUs; `before`: those of earlier sessions."""
    lines = []
    names = sorted({f"{facts['device']} ({_dotted(_capability(facts))})" for facts in gpus})
    if len(names) > 1:
        lines.append(
            f"the GPUs differ: {', '.join(names)}; all trials compute in a number format that all of them have"
        )
    known = {facts["device"] for facts in before}
    new = sorted({facts["device"] for facts in gpus} - known)
    if known and new:
        lines.append(
            f"the run began on {', '.join(sorted(known))} and continues on {', '.join(new)}: last digits may differ"
        )
    return lines


def _capability(facts: Facts) -> tuple[int, int]:
    major, minor = facts["capability"]
    return major, minor


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _named(facts: Facts) -> str:
    return f"{facts['hosts'][0]} has a {facts['device']} ({_dotted(_capability(facts))})"
