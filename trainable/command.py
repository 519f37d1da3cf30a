"""What the commands share: how they end when a request is wrong, and how they say a duration."""

import sys
from collections.abc import Callable, Mapping

from trainable.config import RequestError


def run_command(name: str, app: Callable[..., object]) -> None:
    """Run the command `name`: a wrong request or file ends in one line on stderr and exit code 2, Ctrl-C in 130."""
    try:
        app(prog_name=name)
    except RequestError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"{name}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def frozen_work_said(work: Mapping[str, float]) -> str:
    """What sharing saved, in a line; "" where no frozen layer was needed. `work` is trainable.record.frozen_work's."""
    done, saved = work["frozen_multiply_adds"], work["saved_multiply_adds"]
    if not done + saved:
        return ""
    return (
        f"frozen layers: {done / 1e12:,.2f} T multiply-adds done, {saved / 1e12:,.2f} T saved by sharing "
        f"({(done + saved) / done if done else float('inf'):,.1f} times less work, "
        f"about {duration(work['saved_seconds'])} of a trial's time); "
        f"{work['shared_images']:,.0f} images read from the store, {duration(work['waited_seconds'])} waited"
    )


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s, 12 s, 0.4 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
