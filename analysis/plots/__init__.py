"""Each plot: frame in, figure out."""

from analysis.plots.curves import accuracy, best_by_setting, loss, validation_by_epoch
from analysis.plots.style import COLOURS, TEMPLATE
from analysis.plots.sweeps import heat_map, history, importances, timeline

__all__ = [
    "COLOURS",
    "TEMPLATE",
    "accuracy",
    "best_by_setting",
    "heat_map",
    "history",
    "importances",
    "loss",
    "timeline",
    "validation_by_epoch",
]
