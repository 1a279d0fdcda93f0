"""Attacks: ``attack(network, x, y) -> x_adv``, on any Keras model that returns logits."""

from kbl.attacks.apgd import APGD
from kbl.attacks.attack import Attack
from kbl.attacks.autoattack import AutoAttack, adaptive, standard
from kbl.attacks.carlini_wagner import CarliniWagner
from kbl.attacks.checks import AttackWarning
from kbl.attacks.fab import FAB
from kbl.attacks.gradient import BIM, FGSM, PGD, CarliniWagnerLinf
from kbl.attacks.jsma import JSMA
from kbl.attacks.lbfgs import LBFGS
from kbl.attacks.noise import GaussianNoise, UniformNoise
from kbl.attacks.outcome import Outcome, Progress
from kbl.attacks.prediction import predict
from kbl.attacks.random_search import RandomSearch
from kbl.attacks.square import Square

__all__ = [
    "APGD",
    "BIM",
    "FAB",
    "FGSM",
    "JSMA",
    "LBFGS",
    "PGD",
    "Attack",
    "AttackWarning",
    "AutoAttack",
    "CarliniWagner",
    "CarliniWagnerLinf",
    "GaussianNoise",
    "Outcome",
    "Progress",
    "RandomSearch",
    "Square",
    "UniformNoise",
    "adaptive",
    "predict",
    "standard",
]
