"""Recipes: one TOML file says what is trained and how it is measured."""

from kbl.recipe.faults import RecipeError
from kbl.recipe.load import attack_from_text, data_name_from_text, load, parse
from kbl.recipe.packaged import find, packaged
from kbl.recipe.schema import (
    ATBLR,
    BIM,
    FGSM,
    PGD,
    AdversarialTraining,
    Attack,
    Augmentation,
    Convnet,
    Data,
    Evaluation,
    Method,
    Natural,
    Network,
    Recipe,
    Training,
)
from kbl.recipe.write import to_toml

__all__ = [
    "ATBLR",
    "BIM",
    "FGSM",
    "PGD",
    "AdversarialTraining",
    "Attack",
    "Augmentation",
    "Convnet",
    "Data",
    "Evaluation",
    "Method",
    "Natural",
    "Network",
    "Recipe",
    "RecipeError",
    "Training",
    "attack_from_text",
    "data_name_from_text",
    "find",
    "load",
    "packaged",
    "parse",
    "to_toml",
]
