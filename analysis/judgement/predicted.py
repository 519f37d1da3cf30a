"""Label, correctness and probability of each image, from a frame of predictions (file, label, logit)."""

import numpy as np
import pandas as pd

from analysis.judgement.bootstrap import Floats, Labels
from analysis.statistics import sigmoid
from trainable.metric import is_right


def labels_of(predictions: pd.DataFrame) -> Labels:
    labels: Labels = (predictions["label"] > 0.5).to_numpy()
    return labels


def rights(predictions: pd.DataFrame) -> Labels:
    """(images,): is the prediction at threshold 0.5 right?"""
    right: Labels = is_right(predictions["logit"], predictions["label"]).to_numpy()
    return right


def probabilities(predictions: pd.DataFrame) -> Floats:
    """(images,): predicted probability of class 1."""
    return sigmoid(predictions["logit"].to_numpy(np.float64))
