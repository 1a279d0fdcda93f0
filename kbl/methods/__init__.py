"""Training methods: what is crafted from a batch and what loss is taken on the result."""

from kbl.methods.adversarial_training import AdversarialTraining
from kbl.methods.atblr import ATBLR
from kbl.methods.awp import AWP
from kbl.methods.center import CenterLoss
from kbl.methods.certified import CertifiedTraining
from kbl.methods.distillation import DefensiveDistillation
from kbl.methods.ensemble import EnsembleAdversarialTraining
from kbl.methods.iaat import IAAT
from kbl.methods.lgm import LGM
from kbl.methods.mart import MART
from kbl.methods.method import Method
from kbl.methods.natural import Natural
from kbl.methods.patda import PATDA
from kbl.methods.trades import TRADES

__all__ = [
    "ATBLR",
    "AWP",
    "IAAT",
    "LGM",
    "MART",
    "PATDA",
    "TRADES",
    "AdversarialTraining",
    "CenterLoss",
    "CertifiedTraining",
    "DefensiveDistillation",
    "EnsembleAdversarialTraining",
    "Method",
    "Natural",
]
