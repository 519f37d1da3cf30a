"""The image table in any of its layouts, the split, labels, and access to images.

`open_training_data` opens training and validation images; only `open_test_data` opens test images.
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
