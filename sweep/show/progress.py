"""What the terminal shows while a sweep runs: live on a terminal, plain lines elsewhere."""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.search.ranking import Standing, leader
from trainable.config import TrialConfig
from trainable.metric import Metric
from trainable.records.rows import Origin, Status
from trainable.show.colours import COLOURS
from trainable.show.terminal import PlainConsole
from trainable.show.wording import duration

LINE_SECONDS: Final = 10.0  # assumed


@dataclass
class Line:
    """What is known about one trial."""

    settings: TrialConfig
    number: int
    status: Status
    epoch: int = 0
    value: float | None = None
    standing: Standing | None = None
    """None before its first epoch."""
    slot: str = ""
    note: str = ""
    """What a long step is doing."""
    origin: Origin = "search"

    @property
    def best(self) -> float | None:
        """The metric's value at the best epoch."""
        return None if self.standing is None else self.standing.value

    @property
    def setting(self) -> str:
        """The setting in a few words."""
        return describe(self.settings, self.origin)


@dataclass
class Board:
    """The state of a sweep as its driver sees it."""

    name: str
    metric: Metric
    epochs: int
    trials: int
    """How many are asked for."""
    dashboard: str = ""
    lines: dict[str, Line] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    epochs_done: int = 0
    """In this session."""

    def count(self, status: Status) -> int:
        return sum(line.status is status for line in self.lines.values())

    @property
    def ended(self) -> int:
        return sum(self.is_over(line) for line in self.lines.values())

    def is_over(self, line: Line) -> bool:
        """Is nothing left to do?"""
        return line.status.is_over(line.epoch, self.epochs)

    def leader(self) -> Standing | None:
        """The best trial so far of those that can win."""
        return leader(line.standing for line in self.lines.values() if line.standing)

    def seconds_left(self) -> float | None:
        """Estimated from this session's epochs per second; trials to come are assumed to last as long as ended ones.

        A running trial has at least one epoch to go, however long it has run. None: unknown.
        """
        if not self.epochs_done:
            return None
        over = [line.epoch for line in self.lines.values() if self.is_over(line)]
        typical = sum(over) / len(over) if over else self.epochs
        running = [line for line in self.lines.values() if line.status is Status.RUNNING]
        left = sum(max(typical - line.epoch, 1) for line in running if line.epoch < self.epochs)
        left += typical * max(self.trials - self.ended - len(running), 0)
        if running and not left:
            return None  # how long they will still write is unknown
        return left * (time.monotonic() - self.began) / self.epochs_done


def describe(settings: TrialConfig, origin: Origin = "search") -> str:
    """A setting in a few words: strategy, learning rate, what differs from the defaults, and whether it is an audit."""
    defaults = TrialConfig().model_dump()
    shown = {"strategy": settings.strategy, "lr": f"{settings.lr:.2g}"}
    for name, value in settings.effective().items():
        if name not in ("lr", "strategy", "augmentation_seed") and value != defaults[name]:
            shown[name] = f"{value:.3g}" if isinstance(value, float) else str(value)
    first = f"{shown.pop('strategy')}, lr {shown.pop('lr')}"
    said = ", ".join([first, *(f"{name} {value}" for name, value in shown.items())])
    return f"{said} (audit)" if origin == "audit" else said


def counts(board: Board) -> Text:
    """How many trials are in which state."""
    parts = [
        (f"{board.count(status)} {status}", COLOURS[status].terminal)
        for status in Status
        if board.count(status) and status is not Status.PENDING
    ]
    text = Text(f"{board.ended} of {board.trials} trials ended{': ' if parts else ''}")
    for index, (part, colour) in enumerate(parts):
        text.append(", " if index else "")
        text.append(part, style=colour)
    return text


class Terminal:
    """Shows a board: redrawn four times a second on a terminal; elsewhere prints a line for each trial that ends, as
    in the log, and between them a line for an epoch, at most every `LINE_SECONDS`."""

    def __init__(self, board: Board, console: PlainConsole) -> None:
        self.board = board
        self.console = console
        self._lock = threading.Lock()
        self._next_line = 0.0
        self._live = (
            Live(get_renderable=self.picture, console=console, refresh_per_second=4)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def picture(self) -> RenderableType:
        """The whole board: totals, progress bar, a line per running trial, the best so far."""
        board = self.board
        with self._lock:
            lines = sorted(board.lines.items(), key=lambda item: item[1].number)
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bright_black")
        for column in ("trial", "slot", "epoch", str(board.metric), "best", "setting"):
            table.add_column(column, justify="left", no_wrap=column != "setting")
        for trial_id, line in lines:
            if line.status is Status.RUNNING:
                table.add_row(
                    trial_id,
                    line.slot,
                    f"{line.epoch}/{board.epochs}",
                    *(f"{v:.4f}" if v is not None else "–" for v in (line.value, line.best)),
                    line.setting + (f" ({line.note})" if line.note else ""),
                )
        running: RenderableType = (
            table if table.row_count else Text("workers are starting …", "bright_black")
        )
        bar = Table.grid(padding=(0, 2, 0, 0))
        left = board.seconds_left()
        bar.add_row(
            ProgressBar(total=board.trials, completed=board.ended, width=40),
            f"{duration(time.monotonic() - board.began)} so far",
            "" if left is None else f"about {duration(left)} left",
        )
        return Group(
            Text(board.name, style="bold") + Text("  ") + counts(board), bar, running, self._best()
        )

    def _best(self) -> Text:
        first = self.board.leader()
        if first is None:
            return Text("best so far  –", style="bright_black")
        return Text.assemble(
            ("best so far  ", "bright_black"),
            (f"{first.value:.4f}", COLOURS["winner"].terminal),
            f"  {first.trial_id}  {self.board.lines[first.trial_id].setting}",
        )

    def say(self, text: str) -> None:
        """Print a line that stays, above what is redrawn."""
        self.console.print(Text(text, "yellow"), soft_wrap=True)

    def started(self, trial_id: str, slot: str) -> None:
        line = self.board.lines[trial_id]
        line.status, line.slot = Status.RUNNING, slot

    def epoch(self, trial_id: str) -> None:
        """Another epoch of a trial was recorded; the board's line already shows it."""
        self.board.epochs_done += 1
        now = time.monotonic()
        if self._live or now < self._next_line:
            return
        self._next_line = now + LINE_SECONDS
        board, line = self.board, self.board.lines[trial_id]
        value, best = (f"{v:.4f}" if v is not None else "–" for v in (line.value, line.best))
        left = board.seconds_left()
        self.console.show(
            f"{Status.RUNNING:<11}{trial_id}  {line.epoch:>2} of {board.epochs} epochs  "
            f"{board.metric} {value} (best {best})  {line.setting};  "
            f"{board.ended} of {board.trials} trials ended, "
            f"{duration(now - board.began)} so far"
            + ("" if left is None else f", about {duration(left)} left")
        )

    def ended(self, trial_id: str, status: Status, reason: str) -> None:
        """A trial has ended: print a line if nothing is redrawn, and write it to the log."""
        line = self.board.lines[trial_id]
        line.status = status
        best = f"best {self.board.metric} {line.best:.4f}" if line.best is not None else "no epoch"
        text = Text.assemble(
            (f"{status:<11}", COLOURS[status].terminal),
            f"{trial_id}  {line.epoch:>2} epochs  {best}  {line.setting}",
            (f"  ({reason})" if reason else "", "bright_black"),
        )
        is_shown = self._live is None or status is Status.FAILED
        (self.console.print if is_shown else self.console.note)(text, soft_wrap=True)
