"""Recipes: one TOML file says what is trained and how it is measured."""

from kbl.recipe.attacks import (
    APGD,
    BIM,
    FAB,
    FGSM,
    GAUSSIAN_LOSSES,
    JSMA,
    LBFGS,
    PGD,
    Attack,
    AutoAttack,
    CarliniWagner,
    CarliniWagnerLinf,
    GaussianNoise,
    Square,
    Standard,
    TrainingAttack,
    UniformNoise,
)
from kbl.recipe.faults import RecipeError
from kbl.recipe.load import attack_from_text, data_name_from_text, load, parse
from kbl.recipe.methods import ATBLR, AdversarialTraining, Method, Natural
from kbl.recipe.networks import Convnet, Network
from kbl.recipe.packaged import find, packaged
from kbl.recipe.schema import Augmentation, Data, Evaluation, Recipe, Substitute, Training
from kbl.recipe.write import to_toml

__all__ = [
    "APGD",
    "ATBLR",
    "BIM",
    "FAB",
    "FGSM",
    "GAUSSIAN_LOSSES",
    "JSMA",
    "LBFGS",
    "PGD",
    "AdversarialTraining",
    "Attack",
    "Augmentation",
    "AutoAttack",
    "CarliniWagner",
    "CarliniWagnerLinf",
    "Convnet",
    "Data",
    "Evaluation",
    "GaussianNoise",
    "Method",
    "Natural",
    "Network",
    "Recipe",
    "RecipeError",
    "Square",
    "Standard",
    "Substitute",
    "Training",
    "TrainingAttack",
    "UniformNoise",
    "attack_from_text",
    "data_name_from_text",
    "find",
    "load",
    "packaged",
    "parse",
    "to_toml",
]
