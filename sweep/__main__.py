"""python -m sweep: plan, run, resume, extend, replicate, status, check, dashboard, store."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.request.config import STORAGE, SweepConfig, parse_bytes
from sweep.request.open_run import HeldRun, Run, open_held_run, open_run
from sweep.request.overrides import CHANGEABLE, read_overrides
from sweep.request.refusals import check_folder, load_request
from sweep.session.beginning import BeginSession, Change, begin_new
from sweep.session.create import partial_run
from sweep.session.hold import only_driver
from trainable.records.run_folder import RunFolder
from trainable.show.exit_codes import Exit
from trainable.show.options import HELP, Version
from trainable.show.streams import go_on
from trainable.show.terminal import PlainConsole, expanded, progress, run_command

if TYPE_CHECKING:
    from sweep.on_ray.own_ray import OwnRay
    from sweep.request.prepare import Prepared
    from sweep.resources.machine import Machine
    from trainable.data.examine import Begin

app = typer.Typer(
    help="A distributed hyperparameter sweep that fine-tunes VGG-16 on face attributes.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
console = PlainConsole(
    width=None if sys.stdout and sys.stdout.isatty() else 160
)  # a log file has no edge

Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The sweep's YAML file.", callback=expanded)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Overrides such as trial.epochs=3 search.trials=8."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help=f"Settings to change from now on; none of them changes results: {', '.join(CHANGEABLE)}.",
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder.", callback=expanded)
]
Address = Annotated[
    str,
    typer.Option(
        help="local starts Ray on this machine; auto or HOST:PORT joins a running cluster."
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Take over a run whose driver is gone; a driver that is still running will stop.",
    ),
]
StoreLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE", help="Disk space of a node that shared features may use, such as 200GB."
    ),
]


@app.callback()
def options(version: Version = False) -> None:
    """Options of all commands."""


@app.command()
def plan(config: Config, overrides: Overrides = None, address: Address = "local") -> None:
    """Check everything that a run can be refused for, and show what it would do, without starting Ray."""
    asked = load_request(config, overrides or [])
    check_folder(asked)
    with _nodes(asked, address) as look:
        from sweep.request.prepare import prepare
        from sweep.show.plan import show_plan

        with progress(console) as begin:
            prepared = prepare(asked, begin)
        machine = look(prepared)
    show_plan(asked, prepared, machine, console)
    elsewhere = [] if address == "local" else ["--address", address]
    command = shlex.join(["sweep", "run", str(config), *(overrides or []), *elsewhere])
    console.print(f"next: {command}", soft_wrap=True)


@contextmanager
def _nodes(config: SweepConfig, address: str) -> "Iterator[Callable[[Prepared], Machine]]":
    """Yield a function that says how trials would be placed: on this machine, or on the cluster at the address."""
    if address == "local":
        from sweep.resources.machine import check_format, check_machine

        machine = check_machine(config)
        check_format(config, machine)
        yield lambda prepared: machine
        return
    from sweep.on_ray.cluster_check import joined

    with joined(config, address) as look:
        yield look


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    address: Address = "local",
    store_limit: StoreLimit = None,
) -> None:
    """Start a sweep in a new run folder."""
    limit = [f"store.limit={store_limit}"] if store_limit is not None else []
    asked = load_request(config, [*(overrides or []), *limit])
    raise typer.Exit(start(asked, ["sweep", *sys.argv[1:]], address))


def start(config: SweepConfig, command: Sequence[str], address: str = "local") -> int:
    """Make a run folder, run its first session, and return the exit code.

    A request that is refused before the session begins leaves nothing behind. `command` is recorded as what was asked
    for: the words that were typed, or a Python call as a single word.
    """
    go_on()
    check_folder(config)
    with console.kept(), _own_ray(config, address) as own:
        _check_place(config, address)
        from sweep.request.prepare import prepare
        from sweep.show.plan import show_data

        with progress(console) as begin:
            prepared = prepare(config, begin)
        show_data(prepared, console)
        with partial_run(config, prepared, command) as begun:
            del prepared  # the driver need not hold the backbone's half a gigabyte
            return _session(begun, partial(begin_new, begun), address, own)


def _check_place(config: SweepConfig, address: str) -> None:
    """Before anything is read: does this machine have what trials need, or does anything listen at the address?"""
    if address == "local":
        from sweep.resources.machine import check_machine

        for warning in check_machine(config).warnings:
            console.warn(warning)
    else:
        from sweep.on_ray.cluster import refuse_closed

        refuse_closed(address)


@contextmanager
def _own_ray(config: SweepConfig, address: str) -> "Iterator[OwnRay | None]":
    """Ray on this machine, if the run is to start one: it starts while everything else is read and checked."""
    if address != "local":
        yield None
        return
    from sweep.on_ray.own_ray import OwnRay

    asked = config.resources.concurrent
    own = OwnRay(config.trials if asked == "auto" else asked)
    if own.begins_now:
        console.print("Ray is starting in the background …", style="bright_black")
    try:
        yield own
    finally:
        own.close()


@app.command()
def resume(
    run: RunArgument,
    changes: Changes = None,
    address: Address = "local",
    store_limit: StoreLimit = None,
    take_over: TakeOver = False,
) -> None:
    """Continue a run that was interrupted, killed or moved, or hit its time limit; KEY=VALUE changes a setting."""
    overrides = read_overrides(changes or [])

    def change(folder: RunFolder, command: list[str], begin: "Begin") -> Change:
        if not changes:
            return Change(open_held_run(folder))
        from sweep.session.resume import override

        return override(folder, overrides, command, begin)

    _change(run, address, store_limit, take_over, change)


@app.command()
def extend(
    run: RunArgument,
    changes: Changes = None,
    trials: Annotated[
        str | None,
        typer.Option(metavar="N", help="+12 for twelve more settings, 36 for 36 in total."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a trial in total; finished trials continue.")
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file whose `trial` section replaces the settings it names.",
            callback=expanded,
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed trials once more.")
    ] = False,
    audit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Run N pruned trials, drawn at random within each strategy, to the end: did ASHA stop a better one?",
        ),
    ] = None,
    address: Address = "local",
    store_limit: StoreLimit = None,
    take_over: TakeOver = False,
) -> None:
    """Add settings, epochs, another space or an audit of ASHA to a run, finished or not, and continue it."""
    overrides = read_overrides(changes or [])
    from sweep.session.extend import Request
    from sweep.session.extend import extend as extend_run

    request = Request(trials, epochs, space, retry_failed, audit)

    def change(folder: RunFolder, command: list[str], begin: "Begin") -> Change:
        return extend_run(folder, request, command, overrides, begin)

    _change(run, address, store_limit, take_over, change)


@app.command()
def replicate(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of best settings.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="Number of new seeds for each.")] = 5,
    address: Address = "local",
    store_limit: StoreLimit = None,
    take_over: TakeOver = False,
) -> None:
    """Train the best settings again with new seeds: was it the setting, or luck?"""
    from sweep.session.replicate import replicate as replicate_best

    _change(run, address, store_limit, take_over, lambda f, c, _: replicate_best(f, top, seeds, c))


def _change(
    folder: Path,
    address: str,
    store_limit: str | None,
    take_over: bool,
    change: "Callable[[RunFolder, list[str], Begin], Change]",
) -> None:
    """Lock the run, and continue it as it was changed."""
    go_on()
    held = open_run(folder).folder
    limit = None if store_limit is None else parse_bytes("--store-limit", store_limit)
    with console.kept(), only_driver(held, take_over, _line) as session:
        with progress(console) as begin:
            changed = change(held, ["sweep", *sys.argv[1:]], begin)
        for line in changed.lines:
            console.print(line, soft_wrap=True)
        raise typer.Exit(_go_on(changed, session, address, limit))


def _line(text: str) -> None:
    console.print(text, soft_wrap=True)


def _go_on(change: Change, session: int, address: str, store_limit: int | None) -> int:
    """Run a session under this number, which holds the run, if anything is left to do."""
    from sweep.search.proposals import nothing_left
    from sweep.session.sessions import finish
    from sweep.show.status import read_status

    run = change.run
    if not change.asks_for_trials and nothing_left(run.folder, run.config):
        change.write(run.manifest)
        finish(HeldRun(run.folder, run.config, session))
        counts = ", ".join(
            f"{n} {status}" for status, n in read_status(run.folder.path)["counts"].items()
        )
        console.log_to(run.folder.log)
        console.print(f"nothing is left to do in {run.folder.path}: {counts}", soft_wrap=True)
        return 0
    with _own_ray(run.config, address) as own:
        from sweep.request.prepare import check_unchanged

        with progress(console) as begin_step:
            remarks = check_unchanged(run, begin_step)
        for remark in remarks:
            console.warn(remark)
        return _session(run, partial(change.begin, session), address, own, store_limit)


def _session(
    run: Run,
    begin: BeginSession,
    address: str,
    own: "OwnRay | None",
    store_limit: int | None = None,
) -> int:
    from sweep.on_ray.launcher import run_session  # Ray and torch: seconds

    return run_session(run, begin, address, own, console, store_limit)


@app.command()
def status(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="The run folder; without it, all runs.", callback=expanded
        ),
    ] = None,
    storage: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The folder whose runs are listed.", callback=expanded),
    ] = STORAGE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the status of a run, or list all runs with theirs, from their files alone."""
    if run is None:
        from sweep.show.runs import read_runs, show_runs

        found = read_runs(storage)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            show_runs(found, storage, console)
        return
    from sweep.show.status import read_status, show_status

    facts = read_status(run)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        show_status(facts, console)


@app.command()
def check(
    run: RunArgument, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False
) -> None:
    """Verify every record, digest, reference and image of a run, and change nothing. Exit code 2 means faults."""
    from sweep.show.check import check_run, show_checked

    with progress(console) as begin:
        found = check_run(run, begin)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        show_checked(found, console)
    if found.faults:
        raise typer.Exit(Exit.REQUEST)


@app.command()
def dashboard(
    run: RunArgument, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8080
) -> None:
    """Show the run live in optuna-dashboard; Ctrl-C stops the dashboard and nothing else."""
    from sweep.show.dashboard import Dashboard

    open_run(run)
    served = Dashboard(run, port)
    console.print(f"{served.address}/dashboard shows {run}; Ctrl-C stops it", soft_wrap=True)
    served.serve()


@app.command()
def store(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete everything that no process is reading.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the features that trials on this machine share, or delete them; trials compute them again when needed."""
    from sweep.frozen.usage import clear_store, read_store, show_store

    if clear:
        freed, left = clear_store()
        console.print(
            f"freed {freed / 1e9:.3f} GB" + (f"; {left} chunks are in use" if left else ""),
        )
    elif as_json:
        print(json.dumps(read_store(), indent=2))
    else:
        show_store(read_store(), console)


def main() -> None:
    """The command `sweep`."""
    run_command("sweep", app, _line)


if __name__ == "__main__":
    main()
