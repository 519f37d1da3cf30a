"""Loads the winner's model from the records: which trial it is, its checked weights, and the settings to use here."""

from pathlib import Path

from analysis.frames.ledger import Winner
from analysis.frames.select import Selection
from sweep.request.open_run import Run
from trainable.config import RunSettings
from trainable.errors import RequestError
from trainable.hardware.device import has_gpu
from trainable.network.model import TransferVGG16, build_model, load_backbone
from trainable.records.run_folder import RunFolder


def chosen_winner(run: RunFolder, selection: Selection) -> Winner:
    """The winner by validation with the digest of its weights, as the ledger of openings records it.

    Raises:
        RequestError: there is no winner, or its weights are not on record.
    """
    found = selection.winner
    if found is None:
        raise RequestError(
            f"{run.path} must have a winner by validation, but {selection.remarks()[0]}"
        )
    return Winner(
        trial_id=found.trial_id,
        epoch=found.best.epoch,
        metric=selection.metric,
        value=selection.metric.score(found.score),
        weights_sha256=run.trial(found.trial_id).weights_digest(found.best.epoch),
    )


def settings_here(run: Run) -> RunSettings:
    """The settings that all trials shared, with this machine's device and a number format for it; there were trials."""
    settings = run.settings
    assert settings is not None  # recorded before the first trial
    device = "cuda" if has_gpu() else "cpu"
    precision = settings.precision if device == settings.device else "float32"
    return settings.model_copy(update={"device": device, "precision": precision})


def winner_model(run: Run, winner: Winner, settings: RunSettings) -> TransferVGG16:
    """The model with the winner's trained parameters and the frozen ones below them, on the device of `settings`.

    Raises:
        RequestError: some of them are missing, or don't have the recorded digest.
    """
    record = run.folder.trial(winner.trial_id)
    best = record.load_best(record.rows()[winner.epoch - 1])
    if settings.weights not in ("imagenet", "none") and not Path(settings.weights).exists():
        raise RequestError(
            f"model.weights must be in {settings.weights}, as recorded, but there is no such file; "
            f"give their new place with `sweep resume {run.folder.path} model.weights=PLACE`"
        )
    backbone = load_backbone(settings.weights, settings.width)
    digest, recorded = backbone.digest(), run.manifest.digests.weights
    if digest != recorded:
        raise RequestError(
            f"model.weights {settings.weights} must have the digest {recorded} that was recorded at the start, "
            f"but they have {digest}: the winner was trained with other weights"
        )
    model = build_model(record.asked.settings, backbone)
    model.set_trained(best.weights)
    return model.to(settings.device)
