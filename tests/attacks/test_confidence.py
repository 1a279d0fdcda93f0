"""Carlini & Wagner's κ: an image moves on until it is wrong by so much."""

import keras
import numpy as np
import pytest
from keras import layers

from kbl.attacks import PGD, CarliniWagnerLinf, predict

X = np.full((3, 2, 2, 1), 0.5, "float32")
Y = np.zeros(3, "int32")


def network() -> keras.Model:
    """Logits 0.5 and the sum of the pixels less 2: each step of 0.05 raises the margin by 0.2."""
    made = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2)])
    made.set_weights([np.array([[0.0, 1.0]] * 4), np.array([0.5, -2.0])])
    return made


def margins(attack) -> np.ndarray:
    logits = predict(network(), attack(network(), X, Y))
    return logits[:, 1] - logits[:, 0]


@pytest.mark.parametrize(
    ("kappa", "margin"),
    [(0.0, 0.1), (0.25, 0.3), (0.45, 0.5), (9.0, 1.1)],  # 9 is out of reach: as far as the ball goes
)
def test_kappa(kappa: float, margin: float) -> None:
    attack = CarliniWagnerLinf(0.4, 0.05, 30, kappa=kappa)
    attack = PGD(**{**attack.get_config(), "random_start": False})
    np.testing.assert_allclose(margins(attack), margin, atol=1e-5)


def test_without_kappa_the_first_mistake_ends_it() -> None:
    np.testing.assert_allclose(margins(PGD(0.4, 0.05, 30, loss="margin", random_start=False)), 0.1, atol=1e-5)
    np.testing.assert_allclose(
        margins(PGD(0.4, 0.05, 30, loss="margin", random_start=False, early_stop=False)), 1.1, atol=1e-5
    )
