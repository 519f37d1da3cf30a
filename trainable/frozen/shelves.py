"""Where chunks of each cut are in the node's store, which are to be kept, and which process computes one now."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from trainable.config import Family, Kept, RunSettings
from trainable.frozen.chunks import PIXELS, StoredTable, chunk_size, feature_facts, pixel_facts
from trainable.frozen.store import Chunk, Claim, Shelf, StoreUnavailable
from trainable.hardware.cache import default_folder

LOG = logging.getLogger(__name__)
ANY_CUT: Final = -1  # stands for every cut: none is negative


class Shelves:
    """The shelves of a run; once `problem` is set, nothing is found, claimed or kept there."""

    def __init__(self, run: RunSettings, weights: str) -> None:
        """`weights` is the digest of the frozen layers' weights."""
        assert run.sharing is not None
        self._run, self._sharing, self._weights = run, run.sharing, weights
        self._shelves: dict[int, Shelf] = {}
        self._claims: dict[tuple[bool, str], Claim] = {}
        self.open: dict[tuple[int, str], Chunk] = {}
        """Mapped chunks by cut and name: they can't be evicted."""
        self.problem = ""

    def keeps(self, cut: int, family: Family) -> bool:
        """Is this cut of these views to be stored?"""
        return not self.problem and Kept(cut, family) in self._sharing.kept

    def shelf(self, cut: int) -> Shelf:
        if cut not in self._shelves:
            pixels = pixel_facts(self._run)
            facts = pixels if cut == PIXELS else feature_facts(self._run, self._weights, cut)
            self._shelves[cut] = self._open(facts)
        return self._shelves[cut]

    def claims(self, cut: int) -> Shelf:
        """The shelf where a chunk is claimed: for decoded images their own, for features one that holds only claims."""
        if cut == PIXELS:
            return self.shelf(PIXELS)
        if ANY_CUT not in self._shelves:
            facts = feature_facts(self._run, self._weights, cut)
            self._shelves[ANY_CUT] = self._open(facts | {"holds": "claims", "layers": "any"})
        return self._shelves[ANY_CUT]

    def claim(self, cut: int, name: str) -> Claim | None:
        """A use of the claim on `name`, which is the same for all cuts: computing the head's features of some images
        also passes block 5's. This process may already have the claim, for what it is still writing.

        Raises:
            StoreUnavailable: files can't be locked here.
        """
        key = cut == PIXELS, name
        if key in self._claims and self._claims[key].again():
            return self._claims[key]
        self._claims = {key: claim for key, claim in self._claims.items() if claim.is_held}
        claim = self.claims(cut).try_claim(name)
        if claim is not None:
            self._claims[key] = claim
        return claim

    def map(self, cut: int, name: str) -> bool:
        """Does the chunk exist? If so, it stays mapped."""
        chunk = self.read(cut, name)
        if chunk is not None:
            self.open[cut, name] = chunk
        return chunk is not None

    def table(self, cut: int, names: Sequence[str], images: int) -> StoredTable:
        """Mapped chunks of a part with this many images in one look."""
        return StoredTable(tuple(self.open[cut, name] for name in names), chunk_size(images))

    def give_up(self, error: StoreUnavailable) -> None:
        """Continue without the store; reported once."""
        self.open.clear()
        if not self.problem:
            LOG.warning("frozen features are no longer shared: %s", error)
        self.problem = str(error)

    def read(self, cut: int, name: str) -> Chunk | None:
        """A chunk, mapped; None if it does not exist."""
        return self.open.get((cut, name)) or self.shelf(cut).read(name)

    def _open(self, facts: dict[str, Any]) -> Shelf:
        return Shelf.open(self._run.store or default_folder(), facts, self._sharing.limit_bytes)
