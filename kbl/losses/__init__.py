"""Losses: pure functions ``(y, logits) -> (batch,)`` and, under the same names in capitals, Keras' `Loss` classes."""

from kbl.losses.cross_entropy import CrossEntropy, cross_entropy
from kbl.losses.likelihood import (
    ATBLRAdversarial,
    ATBLRClean,
    LikelihoodRegularization,
    atblr_adversarial,
    atblr_clean,
    distance_margin,
    likelihood_regularization,
    nearest_mean,
)
from kbl.losses.margin import DLR, Margin, dlr, margin, targeted_dlr

__all__ = [
    "DLR",
    "ATBLRAdversarial",
    "ATBLRClean",
    "CrossEntropy",
    "LikelihoodRegularization",
    "Margin",
    "atblr_adversarial",
    "atblr_clean",
    "cross_entropy",
    "distance_margin",
    "dlr",
    "likelihood_regularization",
    "margin",
    "nearest_mean",
    "targeted_dlr",
]
