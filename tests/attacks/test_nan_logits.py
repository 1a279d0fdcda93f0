"""A network that an attack drives to NaN names no class there: it is fooled, and an evaluation says so."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.attacks import APGD, FGSM, PGD, Square, UniformNoise, predict
from kbl.attacks.objective import is_hit, objective

SIDE, CLASSES, EPSILON = 4, 3, 0.3


class Logarithm(layers.Layer):
    """NaN where a pixel is less than 0.1."""

    def call(self, x):
        return ops.log(x - 0.1)

    def compute_output_shape(self, input_shape):
        return input_shape


def network() -> keras.Model:
    made = keras.Sequential(
        [keras.Input((SIDE, SIDE, 1)), Logarithm(), layers.Flatten(), layers.Dense(CLASSES)]
    )
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE, CLASSES)) * 1e-3
    made.set_weights([weights, np.array([1.0, 0.0, 0.0])])  # class 0, which argmax takes NaN for, far ahead
    return made


X = np.random.default_rng(1).uniform(0.3, 0.5, (8, SIDE, SIDE, 1)).astype("float32")
Y = np.zeros(8, "int32")


@pytest.mark.parametrize(
    "attack",
    [
        Square(EPSILON, 60),
        PGD(EPSILON, 0.1, 10, loss="margin"),
        PGD(EPSILON, 0.1, 10, loss="margin", early_stop=False),
        FGSM(EPSILON),
        APGD(EPSILON, 10, loss="margin"),
        UniformNoise(EPSILON, 20),
    ],
    ids=lambda attack: attack.label,
)
def test_nan_is_a_mistake(attack) -> None:
    outcome = attack.search(network(), X, Y)
    assert outcome.fooled.all()
    assert np.isnan(predict(network(), outcome.x_adv)).any(axis=1).all()
    result = kbl.evaluate(network(), X, Y, [attack], diagnostics=False)
    assert (result.clean, result.robust) == (1.0, 0.0)
    assert [warning["name"] for warning in result.warnings] == ["nan_logits"]
    assert "100.0 %" in result.warnings[0]["message"]


@pytest.mark.parametrize("row", [[1.0, np.nan, 3.0], [np.nan] * 3, [3.0, 1.0, np.nan], [np.nan, 2.0, 1.0]])
def test_no_class_and_no_score(row: list[float]) -> None:
    logits = ops.convert_to_tensor(np.array([row] * 3, "float32"))
    labels = ops.convert_to_tensor(np.arange(3, dtype="int32"))
    assert ops.convert_to_numpy(is_hit(labels, logits)).all()
    assert not ops.convert_to_numpy(is_hit(labels, logits, targeted=True)).any()
    score = ops.convert_to_numpy(objective("margin", labels, logits, kappa=float("inf")))
    assert not (score > -np.inf).any()


def test_nan_on_a_clean_image_is_an_error_wherever_it_is() -> None:
    x = np.concatenate([X, X, X])
    x[20] = 0.0
    with pytest.raises(ValueError, match="NaN or infinite logits on clean images"):
        PGD(EPSILON, 0.1, 2)(network(), x, np.zeros(24, "int32"))
