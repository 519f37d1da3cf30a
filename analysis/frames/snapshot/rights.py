"""Which validation images each epoch of a trial got right, as far as that is on record; torch is not needed."""

from analysis.frames.snapshot import ReadTrial, Snapshot
from analysis.statistics import Labels, Right
from trainable.metric import is_right
from trainable.records.right import agrees, read_right


def rights_of(trial: ReadTrial, images: int) -> Right | None:
    """(epochs, images) bool: was the image predicted right? Of exactly the epochs of the snapshot's rows, in order.

    Images are the validation rows of split.parquet in its order, `images` of them. The mean of an epoch is its row's
    val_accuracy.

    None where the record has no such file (right.bits), as runs of older versions have none; where it holds fewer
    epochs, or is of another number of images; and where an epoch's count is not what its row's val_accuracy says.
    Without an epoch on record: None, or (0, images).
    """
    right = read_right(trial.record.right, len(trial.epochs), images)
    if right is None or not agrees(right, trial.epochs.column("val_accuracy")):
        return None
    return right


def validation_labels(run: Snapshot) -> Labels:
    """(images,) of 0 and 1: the labels of the validation images, in the order of `rights_of`.

    Raises:
        RequestError: split.parquet is gone or damaged.
    """
    return run.labels


def right_at(trial: ReadTrial, epoch: int) -> Right:
    """(images,) that the trial got right at an epoch whose predictions were kept, in the split's order.

    Raises:
        RequestError: they were not, or are damaged.
    """
    found = trial.record.predictions(epoch, ["label", "logit"])
    right: Right = is_right(found["logit"], found["label"]).to_numpy()
    return right
