"""Training: the Keras model that runs a method, its batches, its records and its guard."""

from kbl.training.averaging import AveragedWeights
from kbl.training.batches import Batches
from kbl.training.divergence import StopOnDivergence
from kbl.training.probe import Overfitting, Probe, overfitting
from kbl.training.progress import ProgressBar
from kbl.training.recorder import Recorder, read_history
from kbl.training.robust_model import RobustModel

__all__ = [
    "AveragedWeights",
    "Batches",
    "Overfitting",
    "Probe",
    "ProgressBar",
    "Recorder",
    "RobustModel",
    "StopOnDivergence",
    "overfitting",
    "read_history",
]
