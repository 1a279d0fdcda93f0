"""Attacks: ``attack(network, x, y) -> x_adv``, on any Keras model that returns logits."""

from kbl.attacks.attack import Progress, predict
from kbl.attacks.checks import AttackWarning
from kbl.attacks.gradient import BIM, FGSM, PGD

__all__ = ["BIM", "FGSM", "PGD", "AttackWarning", "Progress", "predict"]
