"""Training: the Keras model that runs a method, its batches, its records and its guard."""

from kbl.training.averaging import AveragedWeights
from kbl.training.batches import Batches
from kbl.training.divergence import StopOnDivergence
from kbl.training.probe import Probe
from kbl.training.progress import ProgressBar
from kbl.training.recorder import Recorder
from kbl.training.robust_model import RobustModel

__all__ = [
    "AveragedWeights",
    "Batches",
    "Probe",
    "ProgressBar",
    "Recorder",
    "RobustModel",
    "StopOnDivergence",
]
