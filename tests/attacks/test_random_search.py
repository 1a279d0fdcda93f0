"""Random search of a user's own: steps at once find what steps one by one find, on vectors and with a field `steps`."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import RandomSearch, ball
from kbl.attacks.attack import Passes
from kbl.attacks.objective import is_hit, objective


@dataclass(frozen=True)
class Flips(RandomSearch):
    """Moves every feature of the best vector by a random half of ε, or not."""

    epsilon: float
    steps: int = 50
    norm: str = "linf"
    name: str = "flips"

    def begin(self, forward, state):
        return {}

    def plan(self, state, steps):
        keys = random.key(ops.expand_dims(state["key"], 1), steps)
        index = ops.expand_dims(state["index"], 1) + ops.zeros_like(keys)
        size = state["x"].shape[1]
        draw = random.uniform(ops.reshape(keys, (-1,)), ops.reshape(index, (-1,)), (size,))
        return ops.reshape(ops.floor(3 * draw) - 1.0, (*keys.shape, size))

    def propose(self, state):
        moved = state["best"] + 0.5 * self.epsilon * state["plan"]
        return ball.project(moved, state["x"], self.epsilon, self.norm)

    def judge(self, forward, state, x_adv):
        logits = forward(x_adv)
        return objective("margin", state["y"], logits), is_hit(state["y"], logits)

    def passes(self, classes):
        return Passes(0, 0), Passes(1, 0), Passes(0, 0)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_steps_at_once_find_what_steps_one_by_one_find(steps: int) -> None:
    rng = np.random.default_rng(0)
    network = keras.Sequential([keras.Input((7,)), layers.Dense(3)])
    network.layers[-1].set_weights([rng.normal(size=(7, 3)), np.zeros(3)])
    x = rng.uniform(0.2, 0.8, (12, 7)).astype("float32")
    y = ops.convert_to_numpy(ops.argmax(network(x), axis=1)).astype("int32")
    attack = Flips(0.1, steps)
    outcomes = [attack.search(network, x, y, batch_size=size, seed=4) for size in (12, 96)]
    np.testing.assert_array_equal(outcomes[0].fooled, outcomes[1].fooled)
    np.testing.assert_allclose(outcomes[0].x_adv, outcomes[1].x_adv, atol=1e-6)
    np.testing.assert_allclose(outcomes[0].score, outcomes[1].score, atol=1e-5)
    assert not outcomes[0].fooled.all()
    assert np.abs(outcomes[0].x_adv - x).max() > 0.04
