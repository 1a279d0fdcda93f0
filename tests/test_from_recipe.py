"""A recipe's attack and the same attack made in Python are the same, defaults included."""

import keras
import numpy as np
import pytest

from kbl import attacks, backend, from_recipe, recipe
from kbl.attacks.objective import objective
from kbl.errors import UserError
from kbl.layers import GMMHead

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


def network(head) -> keras.Model:
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), head])


DENSE, IDENTITY = network(keras.layers.Dense(4)), network(GMMHead(4))
DIAGONAL = network(GMMHead(4, covariance="diagonal"))


def test_the_standard_list() -> None:
    described = [recipe.attack_from_text("standard:epsilon=0.1")]
    plain = from_recipe.to_attacks(described, DENSE)
    assert [attack for _, attack in plain] == attacks.standard(0.1)
    gaussian = from_recipe.to_attacks(described, IDENTITY)
    assert [attack for _, attack in gaussian] == attacks.standard(0.1, gaussian_head=True)
    diagonal = [getattr(attack, "loss", None) for _, attack in from_recipe.to_attacks(described, DIAGONAL)]
    assert diagonal == [None, "likelihood", "nearest_mean"]


@pytest.mark.parametrize("loss", ["likelihood", "nearest_mean", "distance_margin"])
def test_which_losses_have_a_gradient_where_log_det_is_negative(loss: str) -> None:
    """At variances of e⁻⁴ every -2 · logit near the means is negative, and the root of the distance is gone."""
    rng = np.random.default_rng(0)
    DIAGONAL.set_weights([rng.uniform(0.4, 0.6, (4, 4)), np.full((4, 4), -4.0)])
    x, y = rng.uniform(0.4, 0.6, (3, 2, 2, 1)).astype("float32"), np.array([0, 1, 2], "int32")

    def rise(images):
        return keras.ops.sum(objective(loss, keras.ops.convert_to_tensor(y), DIAGONAL(images))), ()

    _, gradient = backend.value_and_grad(rise, keras.ops.convert_to_tensor(x))
    moved = np.abs(keras.ops.convert_to_numpy(gradient)).max(axis=(1, 2, 3))
    assert (moved == 0).all() if loss == "distance_margin" else (moved > 0).all()


def test_a_loss_of_the_gaussian_head_needs_one() -> None:
    described = [recipe.attack_from_text("apgd:epsilon=0.1,loss=nearest_mean")]
    assert len(from_recipe.to_attacks(described, IDENTITY)) == 1
    with pytest.raises(UserError, match='loss="nearest_mean" needs a network'):
        from_recipe.to_attacks(described, DENSE)
    with pytest.raises(UserError, match='loss="distance_margin" needs the identity covariance'):
        from_recipe.to_attacks([recipe.attack_from_text("fgsm:epsilon=0.1,loss=distance_margin")], DIAGONAL)
