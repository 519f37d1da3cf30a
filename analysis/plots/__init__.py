"""The plots: each takes a data frame and returns a figure."""

from analysis.plots.curves import (
    accuracy,
    accuracy_drawn,
    best_by_setting,
    loss,
    loss_drawn,
    validation_by_epoch,
)
from analysis.plots.effects import effects
from analysis.plots.every import Drawn, sweep_figures
from analysis.plots.judgement import (
    groups,
    judgement_figures,
    precision_recall,
    reliability,
    roc,
)
from analysis.plots.runs import accuracies, best_by_time
from analysis.plots.search import costs, parallel, rungs
from analysis.plots.style import COLOURS, TEMPLATE
from analysis.plots.sweeps import heat_map, history, timeline

__all__ = [
    "COLOURS",
    "TEMPLATE",
    "Drawn",
    "accuracies",
    "accuracy",
    "accuracy_drawn",
    "best_by_setting",
    "best_by_time",
    "costs",
    "effects",
    "groups",
    "heat_map",
    "history",
    "judgement_figures",
    "loss",
    "loss_drawn",
    "parallel",
    "precision_recall",
    "reliability",
    "roc",
    "rungs",
    "sweep_figures",
    "timeline",
    "validation_by_epoch",
]
