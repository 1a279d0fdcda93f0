"""Losses: pure functions ``(y, logits) -> (batch,)`` and, under the same names in capitals, Keras' `Loss` classes."""

from kbl.losses.center import center_loss
from kbl.losses.cross_entropy import CrossEntropy, cross_entropy
from kbl.losses.domain_adaptation import coral, mmd, moved_centres, supervised_margin
from kbl.losses.large_margin import large_margin_gaussian
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
from kbl.losses.mart import boosted_cross_entropy, misclassification_weighted_kl
from kbl.losses.trades import kl_divergence

__all__ = [
    "DLR",
    "ATBLRAdversarial",
    "ATBLRClean",
    "CrossEntropy",
    "LikelihoodRegularization",
    "Margin",
    "atblr_adversarial",
    "atblr_clean",
    "boosted_cross_entropy",
    "center_loss",
    "coral",
    "cross_entropy",
    "distance_margin",
    "dlr",
    "kl_divergence",
    "large_margin_gaussian",
    "likelihood_regularization",
    "margin",
    "misclassification_weighted_kl",
    "mmd",
    "moved_centres",
    "nearest_mean",
    "supervised_margin",
    "targeted_dlr",
]
