"""Attacks: ``attack(network, x, y) -> x_adv``, on any Keras model that returns logits."""

from kbl.attacks.attack import Attack
from kbl.attacks.checks import AttackWarning
from kbl.attacks.gradient import BIM, FGSM, PGD, CarliniWagnerLinf
from kbl.attacks.search import Outcome, Progress, predict

__all__ = [
    "BIM",
    "FGSM",
    "PGD",
    "Attack",
    "AttackWarning",
    "CarliniWagnerLinf",
    "Outcome",
    "Progress",
    "predict",
]
