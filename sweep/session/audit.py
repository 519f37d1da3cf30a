"""`sweep extend --audit`: run pruned trials to the end, to see whether ASHA stopped a winner."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from trainable.config import TrialConfig
from trainable.errors import RequestError
from trainable.records.rows import Status
from trainable.records.trial_folder import TrialRecord


def draw(
    pruned: Mapping[str, str], audited: Collection[str], count: int, seed: int
) -> tuple[str, ...]:
    """`count` of the trials `pruned` (trial → strategy) that are not in `audited`; all of them if there are fewer.

    They are drawn one by one, each from the strategy with the fewest drawn so far, `audited` included. Within a
    strategy, the order follows from `seed` and the trials' ids alone, not from their results. So each strategy gets a
    simple random sample, and three and then three more are the same as six at once.
    """
    left: dict[str, list[tuple[str, str]]] = {}
    drawn = Counter(pruned[trial_id] for trial_id in audited if trial_id in pruned)
    for trial_id in set(pruned) - set(audited):
        left.setdefault(pruned[trial_id], []).append((_place(seed, trial_id), trial_id))
    for places in left.values():
        places.sort(reverse=True)
    found: list[str] = []
    while left and len(found) < count:
        strategy = min(left, key=lambda each: (drawn[each], left[each][-1]))
        found.append(left[strategy].pop()[1])
        drawn[strategy] += 1
        if not left[strategy]:
            del left[strategy]
    return tuple(found)


def _place(seed: int, trial_id: str) -> str:
    return hashlib.blake2b(f"{seed}/audit/{trial_id}".encode(), digest_size=8).hexdigest()


def settings_to_audit(
    records: Sequence[TrialRecord], count: int, seed: int
) -> tuple[list[TrialConfig], str]:
    """Settings of `count` pruned trials of the search that are not yet audited, and a line that says what was drawn.

    Raises:
        RequestError: `count` is below 1, or there is no such trial.
    """
    if count < 1:
        raise RequestError(f"--audit must be at least 1, but it is {count}")
    pruned = {
        record.trial_id: record.asked.settings
        for record in records
        if record.asked.origin == "search" and record.status().status is Status.PRUNED
    }
    strategies = {trial_id: settings.strategy for trial_id, settings in pruned.items()}
    audited = {record.asked.audits for record in records if record.asked.audits is not None}
    drawn = draw(strategies, audited, count, seed)
    if not drawn:
        has = f"all {len(pruned)} were audited" if pruned else "no trial was pruned"
        raise RequestError(f"--audit needs a pruned trial that is not yet audited, but {has}")
    return [pruned[trial_id] for trial_id in drawn], (
        f"{len(drawn)} of {len(pruned)} pruned trials, {_how(drawn, strategies, count)}, run to the end: "
        "`analysis cost` then says whether ASHA stopped a better one"
    )


def _how(drawn: Sequence[str], strategies: Mapping[str, str], count: int) -> str:
    """How they were drawn, how many of each strategy if there are several, and whether no more were left."""
    counts = Counter(strategies[trial_id] for trial_id in drawn)
    said = [f"fewer than {count} were left"] if len(drawn) < count else []
    if several := len(set(strategies.values())) > 1:
        said.append(", ".join(f"{number} {name}" for name, number in sorted(counts.items())))
    within = " within each strategy" if several else ""
    return f"drawn at random{within}" + (f" ({'; '.join(said)})" if said else "")
