"""The image table in any of its layouts, the split, labels, and the opening of images.

Training and validation images are opened by `open_training_data` and `training_data`; test images by `open_test_data`
alone.
"""

from trainable.data.archive import unpacked
from trainable.data.decoding.decoder import upright
from trainable.data.images import (
    LabelledImages,
    TrainingData,
    decoded_pixels,
    load_pixels,
    open_test_data,
    open_training_data,
    training_data,
)
from trainable.data.split import (
    PARTS,
    Part,
    add_digests,
    balance,
    make_split,
    read_split,
    split_said,
    split_warnings,
)
from trainable.data.tables.finding import find_images, find_table
from trainable.data.tables.table import FaceTable, attributes_by_file, open_table

__all__ = [
    "PARTS",
    "FaceTable",
    "LabelledImages",
    "Part",
    "TrainingData",
    "add_digests",
    "attributes_by_file",
    "balance",
    "decoded_pixels",
    "find_images",
    "find_table",
    "load_pixels",
    "make_split",
    "open_table",
    "open_test_data",
    "open_training_data",
    "read_split",
    "split_said",
    "split_warnings",
    "training_data",
    "unpacked",
    "upright",
]
