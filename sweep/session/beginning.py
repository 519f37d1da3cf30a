"""How a session begins: a new run gets its name, or one that is held gets what is asked of it now.

Either happens once all that can be refused was tried, on the nodes too; until then nothing is on record.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from sweep.request.config import SweepConfig, dump_config
from sweep.request.open_run import HeldRun, Run
from sweep.session.create import give_name
from sweep.session.hold import only_driver
from trainable.config import TrialConfig
from trainable.records.files import write_atomically
from trainable.records.manifest import Configuration, Manifest, read_manifest, write_manifest
from trainable.records.rows import Origin, Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord

BeginSession = Callable[[Manifest], AbstractContextManager[HeldRun]]
"""Puts on record what was refused nowhere, in a manifest that has what was resolved; the run is held meanwhile."""


def asked_for(
    run: Run, config: SweepConfig, command: Sequence[str], sharing_stays: bool = False
) -> Run:
    """`run`, asked for `config` from now on. What is worth sharing is decided anew, or stays. Nothing is written."""
    asked = Configuration.of(dump_config(config), command)
    manifest = run.manifest.with_configuration(asked, sharing_stays)
    return replace(run, manifest=manifest, config=config)


@contextmanager
def begin_new(run: Run, manifest: Manifest) -> Iterator[HeldRun]:
    """Let a partial run have its name, and hold it.

    Raises:
        RequestError: another run of its name was made meanwhile, or the disk fails.
    """
    folder = give_name(run, manifest)
    with only_driver(folder) as session:
        yield HeldRun(folder, run.config, session)


@dataclass(frozen=True)
class Change:
    """What is asked of a held run now; nothing of it is on record yet."""

    run: Run
    """As it is from then on."""
    lines: tuple[str, ...] = ()
    """What it means."""
    again: tuple[TrialRecord, ...] = ()
    """Failed trials to be tried once more."""
    beside: tuple[TrialConfig, ...] = ()
    """Trials to be put beside the search, which neither ASHA nor the sampler sees."""
    origin: Origin = "search"
    """Of those."""

    @property
    def asks_for_trials(self) -> bool:
        """Is something left to do once it is on record, whatever else is there?"""
        return bool(self.again or self.beside)

    def write(self, manifest: Manifest) -> None:
        """Put it on record; `manifest` is the run's, with what was resolved for it."""
        folder = self.run.folder
        if manifest != read_manifest(folder):
            write_manifest(folder, manifest)
            write_atomically(folder.config, manifest.configuration.text.encode())
        for record in self.again:
            again = replace(record.status(), status=Status.PENDING, reason="", failures=0, ended="")
            record.write_status(again)
        number = max((record.asked.number for record in folder.trials()), default=-1) + 1
        for offset, settings in enumerate(self.beside):
            TrialRecord.create(folder, settings, number + offset, None, self.origin)

    @contextmanager
    def begin(self, session: int, manifest: Manifest) -> Iterator[HeldRun]:
        """As BeginSession, of a run that is held under this number."""
        self.write(manifest)
        yield HeldRun(RunFolder(self.run.folder.path.absolute()), self.run.config, session)
