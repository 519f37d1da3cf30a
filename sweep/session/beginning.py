"""How a session begins: a new run gets its name, or the changes to a held run are recorded.

This happens only after every check has passed, on the nodes too; until then nothing is recorded.
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
"""Records a request that passed all checks, in a manifest with what was resolved; the run is held meanwhile."""


def asked_for(
    run: Run, config: SweepConfig, command: Sequence[str], sharing_stays: bool = False
) -> Run:
    """`run` with `config` as its new request. What is worth sharing is decided anew, or stays. Nothing is written."""
    asked = Configuration.of(dump_config(config), command)
    manifest = run.manifest.with_configuration(asked, sharing_stays)
    return replace(run, manifest=manifest, config=config)


@contextmanager
def begin_new(run: Run, manifest: Manifest) -> Iterator[HeldRun]:
    """Give a partial run its name, and hold it.

    Raises:
        RequestError: another run with its name was created meanwhile, or the disk fails.
    """
    folder = give_name(run, manifest)
    with only_driver(folder) as session:
        yield HeldRun(folder, run.config, session)


@dataclass(frozen=True)
class Change:
    """A change to a held run; none of it is recorded yet."""

    run: Run
    """As it will be."""
    lines: tuple[str, ...] = ()
    """What it means, for the user."""
    again: tuple[TrialRecord, ...] = ()
    """Failed trials to retry."""
    beside: tuple[TrialConfig, ...] = ()
    """Trials to add outside the search, which neither ASHA nor the sampler sees."""
    origin: Origin = "search"
    """The origin of those."""

    @property
    def asks_for_trials(self) -> bool:
        """Does it add trials, so that something is left to do in any case?"""
        return bool(self.again or self.beside)

    def write(self, manifest: Manifest) -> None:
        """Record it; `manifest` is the run's, with what was resolved for it."""
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
        """As BeginSession, for a run that is held under this number."""
        self.write(manifest)
        yield HeldRun(RunFolder(self.run.folder.path.absolute()), self.run.config, session)
