"""The stages, the most valuable first, and how much time each gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Stage:
    """A function `place` (module:function of this package) of a job and a note, run in its own process."""

    name: str
    place: str
    seconds: float
    """Its share of the whole; time left over by earlier stages is added, up to `LONGEST`."""


LONGEST: Final = 90.0  # seconds of one stage
WHOLE: Final = 600.0
LEAST: Final = 8.0  # seconds below which a stage is pointless: its imports alone take as long
DRAWING: Final = Stage("drawing", "drawing:draw", 60)
STAGES: Final = (
    Stage("environment", "environment:environment", 15),
    Stage("tiny", "equality:tiny", 45),
    Stage("equality", "equality:at_full_size", 50),
    Stage("graphs", "graphs:graphs", 25),
    Stage("captures", "memory:captures", 20),
    Stage("memory", "memory:memory", 20),
    Stage("steps", "speed:steps", 40),
    Stage("fill", "filling:fill", 60),
    Stage("epochs", "speed:epochs", 55),
    Stage("sweep", "sweeps:sweep", 70),
    Stage("packing", "packing:packing", 35),
    Stage("kill", "sweeps:kill", 60),
    Stage("plain", "sweeps:plain", 45),
)
assert DRAWING.seconds + sum(stage.seconds for stage in STAGES) <= WHOLE


def allowed(stage: Stage, later: Sequence[Stage], left: float, patience: float = 1.0) -> float:
    """Seconds that a stage may take when `left` of the whole are left; 0 if it must be skipped.

    It can use what earlier stages have not used, but leaves what the `later` ones need.
    """
    spare = left - patience * (stage.seconds + sum(each.seconds for each in later))
    seconds = min(patience * stage.seconds + max(spare, 0.0), patience * LONGEST, left)
    return seconds if seconds >= LEAST else 0.0


def chosen(only: str | None) -> list[Stage]:
    """The stages named in `only` (separated by commas) in their order; all if nothing is named.

    Raises:
        ValueError: a name is unknown; its text lists the known ones.
    """
    if only is None:
        return list(STAGES)
    names = [name.strip() for name in only.split(",")]
    known = [stage.name for stage in STAGES]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"--only must name some of {', '.join(known)}, but it names {unknown[0]}")
    return [stage for stage in STAGES if stage.name in names]
