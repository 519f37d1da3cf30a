"""Keeps test images from the winner until the test set has been opened for it. Files are recognised by their content.

A picture in memory is recognised by the file that Pillow opened it from; one without a file, such as a tensor, can't be
recognised: split.parquet has digests of files only.
"""

from collections.abc import Sequence

from analysis.frames.ledger import NextStep, Winner, next_step
from analysis.frames.snapshot import Snapshot
from trainable.data import read_split
from trainable.errors import RequestError


def refuse_sealed(
    run: Snapshot, winner: Winner, names: Sequence[str], digests: Sequence[str | None]
) -> None:
    """Raises RequestError if a digest is that of a test image, and the test set was not opened for `winner`."""
    sealed = set(read_split(run.folder.split, ("test",))["sha256"])
    found = [name for name, sha in zip(names, digests, strict=True) if sha in sealed]
    if not found:
        return
    said = f"{len(found):,} of the {len(names):,} images are test images of this run, the first {found[0]}"
    command = f"analysis test {run.folder.path}"
    try:
        step = next_step(run.openings, winner, run.manifest.digests.split, None)
    except RequestError as error:  # opened for another winner
        raise RequestError(f"{said}: {error} (`{command}`)") from None
    if step is NextStep.OPEN:
        raise RequestError(
            f"{said}, but its test set has not been opened; leave them out, or open it, once, with `{command}`"
        )
    if step is NextStep.COMPLETE:
        raise RequestError(
            f"{said}, but the opening of its test set was interrupted; `{command}` completes it"
        )
