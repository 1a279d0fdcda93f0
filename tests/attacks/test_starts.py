"""Several starts of an image go together; what is found is what they would have found one after the other."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend
from kbl.attacks import FAB, Attack
from kbl.attacks.state import keep, per_image

DUE = (99, 30, 5, 45)  # the step at which each start fools; the first never does


@dataclass(frozen=True)
class Timed(Attack):
    steps: int = 50
    restarts: int = 4
    epsilon: float = 1.0
    norm: str = "linf"
    name: str = "timed"

    def begin(self, forward, state):
        return {}

    def step(self, forward, state, i):
        start = ops.cast(state["restart"], "float32")
        due = ops.take(ops.convert_to_tensor(DUE, dtype="int32"), state["restart"])
        return keep(state, state["x"] + 0.125 * per_image(start, state["x"]), start, i >= due)


def network() -> keras.Model:
    made = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(3)])
    made.set_weights([np.zeros((4, 3)), np.array([2.0, 0.0, 0.0])])
    return made


X, Y = np.full((3, 2, 2, 1), 0.25, "float32"), np.zeros(3, "int32")
ALONE = 3 + 3 * 50  # the look at the clean images; the first start


@pytest.mark.parametrize(
    ("batch_size", "passes"),
    [
        (3, ALONE + 3 * 31),  # the second start fools all: no third
        (6, ALONE + 6 * 20 + 3 * 11),  # of two starts that go together the later one leaves at the first look
        (9, ALONE + 9 * 20 + 3 * 11),  # and so does what comes after a start that has fooled
        (64, ALONE + 9 * 20 + 3 * 11),
        (2, 3 + 3 * 50 + 3 * 31),
    ],
)
def test_the_first_start_that_fools_is_kept(batch_size: int, passes: int) -> None:
    outcome = Timed().search(network(), X, Y, batch_size=batch_size)
    assert outcome.fooled.all()
    np.testing.assert_array_equal(outcome.x_adv, X + 0.125)
    np.testing.assert_array_equal(outcome.score, [1.0] * 3)
    if not backend.COMPILES_SHAPES:  # where each shape compiles, so few images are not worth a smaller one
        assert outcome.forward == passes


@dataclass(frozen=True)
class Early(Timed):
    def step(self, forward, state, i):
        return keep(state, state["x"], state["score"], (state["index"] == 0) & (i >= 2))


def test_what_is_fooled_early_leaves_early() -> None:
    """After 5 steps on torch; where each shape compiles after 20, if so few were worth a smaller batch."""
    outcome = Early(restarts=1).search(network(), X, Y)
    np.testing.assert_array_equal(outcome.fooled, [True, False, False])
    assert outcome.forward == 3 + (3 * 50 if backend.COMPILES_SHAPES else 3 * 5 + 2 * 45)


@pytest.mark.parametrize("batch_size", [3, 6, 64])
def test_of_starts_that_do_not_fool_the_best_is_kept(batch_size: int) -> None:
    outcome = Timed(steps=4).search(network(), X, Y, batch_size=batch_size)
    assert not outcome.fooled.any()
    np.testing.assert_array_equal(outcome.score, [3.0] * 3)
    np.testing.assert_array_equal(outcome.x_adv, X + 0.375)


@pytest.mark.parametrize("batch_size", [2, 7, 64])
def test_the_nearest_of_all_starts_is_kept(batch_size: int) -> None:
    """A minimum-norm attack goes on after an image is fooled: towards each class in turn."""
    made = network()
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=(4, 3)), rng.normal(size=3)])
    x = rng.random((5, 2, 2, 1)).astype("float32")
    y = made.predict(x, verbose=0).argmax(axis=1)
    alone = [
        FAB(steps=10, targets=1).search(made, x, y),
        FAB(steps=10, targets=2).search(made, x, y, batch_size=5),
    ]
    together = FAB(steps=10, targets=2).search(made, x, y, batch_size=batch_size)
    np.testing.assert_allclose(together.score, alone[1].score, rtol=1e-5)
    np.testing.assert_array_equal(together.fooled, alone[1].fooled)
    assert (together.score >= alone[0].score - 1e-6).all()
