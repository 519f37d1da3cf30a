"""`sweep extend`: more trials, more epochs, another space, failed trials once more, pruned ones to the end.

The request is recorded as the session begins; which trials it concerns follows from the records, so after a kill
`sweep resume` continues it. Failed trials are marked, and audits recorded, one by one: if --retry-failed or --audit is
killed meanwhile, give the command again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.request.config import SweepConfig, check_config
from sweep.request.open_run import open_held_run
from sweep.request.overrides import NO_OVERRIDES, Overrides, overridden
from sweep.request.prepare import check_classifier, check_heads
from sweep.request.yaml_text import read_yaml
from sweep.search.proposals import Proposals
from sweep.search.study import recorded
from sweep.session.audit import settings_to_audit
from sweep.session.beginning import Change, asked_for
from sweep.session.resume import changes_said, moved
from trainable.data.examine import Begin, no_progress
from trainable.errors import RequestError
from trainable.network.model import load_backbone
from trainable.records.rows import Status
from trainable.records.run_folder import RunFolder
from trainable.records.trial_folder import TrialRecord


@dataclass(frozen=True)
class Request:
    """What `sweep extend` was asked for; None and False for what it was not."""

    trials: str | None = None
    """+12 for twelve more, 36 for 36 in total."""
    epochs: int | None = None
    """In total."""
    space: Path | None = None
    """A YAML file whose `trial` section replaces the settings it names in the run's."""
    retry_failed: bool = False
    audit: int | None = None
    """How many pruned trials to run to the end."""


def extend(
    run: RunFolder,
    request: Request,
    command: Sequence[str],
    overrides: Overrides = NO_OVERRIDES,
    begin: Begin = no_progress,
) -> Change:
    """The requested change to a run that the caller holds.

    Raises:
        RequestError: nothing is asked for, less than there is, an invalid configuration, or an audit of nothing; as in
            `moved` if something is overridden.
    """
    if request == Request():
        raise RequestError(
            "extend must be told what to add: --trials +12, --epochs 20, --space FILE, --retry-failed or --audit 3; "
            "to change only KEY=VALUE, use `sweep resume`"
        )
    opened = open_held_run(run)
    before = opened.config
    after = overridden(opened, extended(before, request), overrides)
    if "pretrained" in after.values_of("head"):
        backbone = load_backbone(after.model.weights, after.model.width)
        check_heads(after, backbone)
        if "pretrained" not in before.values_of("head"):
            check_classifier(after, backbone)
    everything = run.trials()
    records = [record for record in everything if record.asked.origin == "search"]
    failed = [record for record in everything if record.status().status is Status.FAILED]
    if request.retry_failed and not failed:
        raise RequestError(f"--retry-failed needs a failed trial, but {run.path} has none")
    tried = [recorded(record, after.metric) for record in records]
    if request.trials is not None and Proposals(after).next(tried) is None:
        raise RequestError(
            f"--trials {request.trials} must leave something to try, but every setting that was asked for exists: "
            f"{len(tried)} trials; ask for more, or widen the space with --space"
        )
    audits, drawn = (
        settings_to_audit(everything, request.audit, after.search.seed)
        if request.audit is not None
        else ([], "")
    )
    there = asked_for(moved(opened, after, overrides, begin), after, command)
    again = tuple(failed) if request.retry_failed else ()
    said = _said(before, after, records, len(again))
    lines = (*said, *([drawn] if audits else []), *changes_said(opened, there, overrides))
    return Change(there, lines, again, tuple(audits), "audit")


def extended(config: SweepConfig, request: Request) -> SweepConfig:
    """`config` with what is asked for.

    Raises:
        RequestError: less than there is, or an invalid space.
    """
    facts: dict[str, Any] = config.model_dump(mode="json")
    places: dict[tuple[str, ...], str] = {}
    if request.space is not None:
        given, lines = _space(request.space)
        facts["trial"] |= given
        places |= lines
    if request.epochs is not None:
        if request.epochs < config.epochs:
            raise RequestError(
                f"--epochs must be at least the {config.epochs} that each trial was given, but it is {request.epochs}"
            )
        facts["trial"]["epochs"] = request.epochs
        places["trial", "epochs"] = f"--epochs {request.epochs}"
    if request.trials is not None:
        facts["search"]["trials"] = _count(request.trials, config)
        places["search", "trials"] = f"--trials {request.trials}"
    return check_config(facts, places, "what is asked for")


def _space(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The `trial` section of a file, and where its keys are."""
    facts, places = read_yaml(path)
    section = facts.get("trial")
    if not isinstance(section, dict) or set(facts) != {"trial"}:
        raise RequestError(
            f"{path} must hold a single section `trial` with the settings to change, "
            f"but it holds {', '.join(map(str, facts)) or 'nothing'}"
        )
    if "epochs" in section:
        raise RequestError(
            f"the epochs of a run must be changed by --epochs, but {path} has epochs; remove them there"
        )
    return section, places


def _count(text: str, config: SweepConfig) -> int:
    try:
        count = int(text)
    except ValueError:
        raise RequestError(
            f"--trials must be +12 for twelve more or 36 for 36 in total, but it is {text!r}"
        ) from None
    total = config.trials + count if text.strip().startswith("+") else count
    if count < 1 or total < config.trials:
        raise RequestError(
            f"--trials must be more than the {config.trials} that were asked for, but it is {text}"
        )
    return total


def _said(
    before: SweepConfig, after: SweepConfig, records: Sequence[TrialRecord], again: int
) -> list[str]:
    """What the extension means for the trials on record and for new ones."""
    lines = []
    if after.trials != before.trials:
        lines.append(f"{before.trials} → {after.trials} settings")
    if after.epochs != before.epochs:
        more = [r for r in records if r.status().status is Status.FINISHED]
        kept = sum(record.last.exists() for record in more)
        lines.append(
            f"{before.epochs} → {after.epochs} epochs: of {len(more)} finished trials {kept} continue from their kept "
            f"state, {len(more) - kept} start again (keep.best kept the state of {before.keep.best})"
        )
    outside = sum(after.space.place(record.asked.settings) is None for record in records)
    if outside:
        lines.append(
            f"{outside} of {len(records)} trials are outside the new space: they stay in results and ranking, "
            "but the search does not learn from them"
        )
    if again:
        lines.append(f"{again} failed trials will be retried")
    return lines
