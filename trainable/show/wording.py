"""Durations, devices and frozen work in words."""

from collections.abc import Iterable, Mapping
from typing import Any


def frozen_work_said(work: Mapping[str, Any]) -> str:
    """What sharing saved, in a line; "" if no frozen layer was needed. `work` is from rows.frozen_work."""
    done, saved = work["frozen_multiply_adds"], work["saved_multiply_adds"]
    if not done and not saved:
        return ""
    tera = f"frozen layers: {done / 1e12:,.2f} T multiply-adds done"
    if saved < 0:
        tera += f", {-saved / 1e12:,.2f} T of them ahead of the epochs that will use them"
    elif done:
        times, seconds = (done + saved) / done, duration(work["saved_seconds"])
        tera += (
            f", {saved / 1e12:,.2f} T saved by sharing "
            f"({times:,.1f} times less work, about {seconds} of training time, summed over trials)"
        )
    else:
        tera += f", {saved / 1e12:,.2f} T saved by sharing (all of it was in the store before)"
    return (
        f"{tera}; frozen features of {work['shared_images']:,.0f} images read, "
        f"{duration(work['waited_seconds'])} waited"
    )


def device_said(facts: Mapping[str, Any]) -> str:
    """A node's device and its software, in words; `facts` are from hardware.device, as in the manifest."""
    found = [str(facts.get("device", "unknown"))]
    if "capability" in facts:
        found.append(f"compute capability {'.'.join(map(str, facts['capability']))}")
    if "memory_bytes" in facts:
        found.append(f"{facts['memory_bytes'] / 1e9:.0f} GB")
    known = ("instructions", "driver", "cuda", "cudnn", "torch")
    words = {"cuda": "CUDA", "cudnn": "cuDNN"}
    found += [f"{words.get(name, name)} {facts[name]}" for name in known if facts.get(name)]
    return ", ".join(found)


def devices_said(devices: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each kind of device, with all its hosts."""
    hosts: dict[str, dict[str, None]] = {}
    for facts in devices:
        hosts.setdefault(device_said(facts), {}).update(dict.fromkeys(facts["hosts"]))
    return [f"{', '.join(names)}: {device}" for device, names in hosts.items()]


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s, 12 s, 0.4 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
