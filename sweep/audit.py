"""sweep extend --audit: pruned trials run to the end, to see whether ASHA stopped a winner."""

import hashlib
from collections.abc import Collection, Sequence

from trainable.config import RequestError, TrialConfig
from trainable.record import TrialRecord
from trainable.rows import Status


def draw(
    pruned: Collection[str], audited: Collection[str], count: int, seed: int
) -> tuple[str, ...]:
    """`count` of the trials `pruned` that are not in `audited`, at random; all of them where they are fewer.

    Each trial has its place in an order that follows from `seed` and its id alone, not from how it did, and the first
    ones are taken. So the share of them that would have won is an unbiased estimate of that share among all that were
    pruned. Three and then three more are the same as six at once.
    """
    left = set(pruned) - set(audited)
    return tuple(sorted(left, key=lambda trial_id: _place(seed, trial_id))[:count])


def _place(seed: int, trial_id: str) -> str:
    return hashlib.blake2b(f"{seed}/audit/{trial_id}".encode(), digest_size=8).hexdigest()


def settings_to_audit(
    records: Sequence[TrialRecord], count: int, seed: int
) -> tuple[list[TrialConfig], str]:
    """Settings of `count` pruned trials of the search that were not audited yet, and a line that says what was drawn.

    Raises:
        RequestError: `count` is below 1, or no such trial is there.
    """
    if count < 1:
        raise RequestError(f"--audit must be at least 1, but it is {count}")
    pruned = {
        record.trial_id: record.origin.settings
        for record in records
        if record.origin.origin == "search" and record.status().status is Status.PRUNED
    }
    audited = {record.origin.audits for record in records if record.origin.audits is not None}
    drawn = draw(pruned, audited, count, seed)
    if not drawn:
        has = f"all {len(pruned)} were audited" if pruned else "no trial was pruned"
        raise RequestError(f"--audit needs a pruned trial that was not audited yet, but {has}")
    fewer = f" (fewer than {count} were left)" if len(drawn) < count else ""
    said = (
        f"{len(drawn)} of {len(pruned)} pruned trials, drawn at random{fewer}, run to the end: "
        "`analysis cost` says whether one of them would have won"
    )
    return [pruned[trial_id] for trial_id in drawn], said
