"""Which validation images each epoch of a trial got right, as far as that is on record. It does not need torch."""

from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.statistics import Labels, Right
from trainable.metric import is_right
from trainable.records.right import agrees, read_right


def rights_of(trial: ReadTrial, images: int) -> Right | None:
    """(epochs, images) bool: was the image predicted right? For exactly the epochs of the snapshot's rows, in order.

    Images are the validation rows of split.parquet in its order, `images` of them. The mean of an epoch equals its
    row's val_accuracy.

    None if there is no such file (right.bits), as in runs of older versions; if it holds fewer epochs, or another
    number of images; or if an epoch's count does not match its row's val_accuracy. If no epoch is on record: None, or
    (0, images).
    """
    right = read_right(trial.record.right, len(trial.epochs), images)
    if right is None or not agrees(right, trial.epochs.column("val_accuracy")):
        return None
    return right


def validation_labels(run: Snapshot) -> Labels:
    """(images,) of 0 and 1: the labels of the validation images, in the order of `rights_of`.

    Raises:
        RequestError: split.parquet is missing or damaged.
    """
    return run.labels


def right_at(trial: ReadTrial, epoch: int) -> Right:
    """(images,): which images the trial got right at an epoch whose predictions were kept, in the split's order.

    Raises:
        RequestError: the predictions were not kept, or are damaged.
    """
    found = trial.record.predictions(epoch, ["label", "logit"])
    right: Right = is_right(found["logit"], found["label"]).to_numpy()
    return right
