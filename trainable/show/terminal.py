"""What the commands share: how they print, and how they end when a request is wrong."""

import io
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, Final, NoReturn
from unicodedata import category

from rich.console import Console
from rich.control import Control
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from trainable.config import absolute
from trainable.errors import RequestError
from trainable.show import signals, streams
from trainable.show.exit_codes import Exit


def printable(text: str, keep: str = "") -> str:
    """`text`, escaping every character that a terminal would interpret or can't encode, except those in `keep`."""
    return "".join(
        c if c.isprintable() or c in keep or category(c) == "Zs" else escape(c) for c in text
    )


def escape(character: str) -> str:
    """As in a Python string."""
    return character.encode("unicode_escape").decode()


LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
LOG_COLUMNS: Final = 160  # of a line in the log; assumed


class PlainConsole(Console):
    """Prints text as it is: names from tables and paths are neither markup, emoji nor terminal commands.

    What it prints can be kept with its times until there is a log for it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)
        self._kept: MemoryHandler | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is printed while the context lasts."""
        before, kept = self._kept, MemoryHandler(sys.maxsize, flushLevel=sys.maxsize)
        self._kept = kept
        try:
            yield
        finally:
            self._kept = before
            if kept.target is not None:
                with suppress(OSError):
                    kept.target.close()

    def log_to(self, path: Path) -> None:
        """Append what was kept, and all that follows, to this file; a full disk is reported elsewhere."""
        if self._kept is None:
            return
        log = logging.FileHandler(path, encoding="utf-8")
        log.handleError = _nothing  # type: ignore[method-assign]
        log.setFormatter(logging.Formatter(LOG_FORMAT))
        self._kept.setTarget(log)
        self._kept.flush()
        self._kept.capacity = 1

    def on_broken_pipe(self) -> NoReturn:
        """Leave the decision to the caller."""
        raise BrokenPipeError

    def print(self, *objects: Any, **options: Any) -> None:
        """As in rich, but also kept, except for a Control, which only redraws the screen."""
        super().print(*objects, **options)
        if not any(isinstance(each, Control) for each in objects):
            self.note(*objects, **options)

    def show(self, text: str) -> None:
        """Print a line that is not kept."""
        super().print(text, soft_wrap=True)

    def note(self, *objects: Any, **options: Any) -> None:
        """Keep a line that is not printed."""
        if self._kept is None:
            return
        plain = Console(file=io.StringIO(), width=LOG_COLUMNS, markup=False, emoji=False)
        plain.print(
            *(printable(each, keep="\n") if isinstance(each, str) else each for each in objects),
            **options,
        )
        assert isinstance(plain.file, io.StringIO)
        for line in plain.file.getvalue().splitlines():
            if line := line.rstrip():
                record = logging.LogRecord("sweep", logging.INFO, "", 0, "%s", (line,), None)
                self._kept.handle(record)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string passes through here, in tables too."""
        return super().render_str(printable(text, keep="\n"), **options)

    def warn(self, text: str) -> None:
        """Print a line that begins with a yellow `warning:`."""
        self.print(Text.assemble(("warning:", "yellow"), " ", printable(text)), soft_wrap=True)


def _nothing(record: object) -> None:
    """Do nothing."""


def run_command(
    name: str, app: Callable[..., object], tell: Callable[[str], None] | None = None
) -> None:
    """Run the Typer `app` as the command `name`, and exit with its code; without arguments it shows its help.

    A wrong request, a wrong option or an unusable file ends with one line on stderr and exit code 2, Ctrl-C with 130,
    SIGTERM with 143. Whatever happens to its output, it ends without a traceback. `tell` reports a signal.
    """
    output = streams.take_over()
    tell = tell or _tell
    signals.listen(tell)
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except RequestError as error:
        _refuse(name, str(error))
    except BrokenPipeError:
        code = Exit.CUT_OFF
    except OSError as error:
        _refuse(name, f"{error.filename or 'a file'}: {error.strerror or error}")
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and signals.heard() is None:
            raise
        code = Exit.INTERRUPTED  # Ray also ends the process by SystemExit
    except Exception as error:
        if not hasattr(error, "format_message"):  # Typer's own; it exports no class
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else name
        said = " ".join(error.format_message().split()).rstrip(".")
        _refuse(name, f"{said[:1].lower()}{said[1:]}; see `{command} --help`")
    finally:
        output.goes_on = True  # for what is left in its buffer
    if code == Exit.INTERRUPTED:
        signals.say_ended(tell)
    if code == Exit.INTERRUPTED and signals.heard() is signal.SIGTERM:
        code = Exit.TERMINATED  # Typer treats every KeyboardInterrupt as Ctrl-C
    sys.exit(code if isinstance(code, int) else 0)


def expanded(value: Any) -> Any:
    """A path or several from the command line, with a `~` that the shell left as the user's home: `--out=~/x`.

    A folder that is really named `~` stays accessible: older versions wrote runs there.
    """
    if isinstance(value, list):
        return [expanded(each) for each in value]
    if not isinstance(value, Path) or not str(value).startswith("~"):
        return value
    return value.absolute() if value.exists() else absolute(value, "a path")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _refuse(name: str, text: str) -> NoReturn:
    print(f"{name}: {printable(text)}", file=sys.stderr)
    sys.exit(Exit.REQUEST)


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A progress bar on a terminal; nothing elsewhere."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:

        def begin(text: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(text, total=total)
            return lambda count: bar.advance(task, count)

        yield begin
