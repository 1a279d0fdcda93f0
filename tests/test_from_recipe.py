"""A recipe's attack and the same attack made in Python are the same, defaults included."""

import pytest

from kbl import attacks, from_recipe, recipe
from kbl.errors import UserError

ITERATIVE = {"epsilon": 0.1, "steps": 5, "step_size": 0.02}
REQUIRED = {
    "fgsm": {"epsilon": 0.1},
    "bim": ITERATIVE,
    "pgd": ITERATIVE,
    "cw": {"epsilon": 0.1, "step_size": 0.02},
    "carlini_wagner": {},
    "apgd": {"epsilon": 0.1},
    "fab": {},
    "square": {"epsilon": 0.1},
    "jsma": {},
    "lbfgs": {},
    "uniform_noise": {"epsilon": 0.1},
    "gaussian_noise": {"sigma": 0.1},
    "autoattack": {"epsilon": 0.1},
}
CLASSES = {
    "fgsm": attacks.FGSM,
    "bim": attacks.BIM,
    "pgd": attacks.PGD,
    "cw": attacks.CarliniWagnerLinf,
    "carlini_wagner": attacks.CarliniWagner,
    "apgd": attacks.APGD,
    "fab": attacks.FAB,
    "square": attacks.Square,
    "jsma": attacks.JSMA,
    "lbfgs": attacks.LBFGS,
    "uniform_noise": attacks.UniformNoise,
    "gaussian_noise": attacks.GaussianNoise,
    "autoattack": attacks.AutoAttack,
}


@pytest.mark.parametrize("name", REQUIRED)
def test_defaults_agree(name: str) -> None:
    text = ",".join(f"{key}={value}" for key, value in REQUIRED[name].items())
    described = recipe.attack_from_text(f"{name}:{text}")
    assert from_recipe.to_attack(described) == CLASSES[name](**REQUIRED[name])


def test_the_standard_list() -> None:
    described = [recipe.attack_from_text("standard:epsilon=0.1")]
    plain = from_recipe.to_attacks(described, gaussian_head=False)
    assert [attack for _, attack in plain] == attacks.standard(0.1)
    gaussian = from_recipe.to_attacks(described, gaussian_head=True)
    assert [attack for _, attack in gaussian] == attacks.standard(0.1, gaussian_head=True)


def test_a_loss_of_the_gaussian_head_needs_one() -> None:
    described = [recipe.attack_from_text("apgd:epsilon=0.1,loss=nearest_mean")]
    assert len(from_recipe.to_attacks(described, gaussian_head=True)) == 1
    with pytest.raises(UserError, match='loss="nearest_mean" needs a network'):
        from_recipe.to_attacks(described, gaussian_head=False)
