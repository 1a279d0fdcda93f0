"""L-BFGS against distances that are known, and what it promises besides."""

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers

from kbl.attacks import predict
from kbl.attacks.lbfgs import LBFGS
from kbl.layers import GMMHead

SIZE = 16


@cache
def linear_layer() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)])


def linear_network(weights: np.ndarray, bias: float) -> keras.Model:
    """Logits (-t/2, t/2, far below) with t = w·x + b."""
    network = linear_layer()  # one for all tests: only the weights change, so nothing compiles anew
    kernel = np.stack([-weights / 2, weights / 2, np.zeros(SIZE)], axis=1)
    network.layers[-1].set_weights([kernel, np.array([-bias / 2, bias / 2, -100])])
    return network


@cache
def curved_network(kind: str = "dense") -> keras.Model:
    head = GMMHead(3) if kind == "gmm" else layers.Dense(3)
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(8, activation="tanh"), head]
    )
    rng = np.random.default_rng(2)
    network.set_weights([rng.normal(size=w.shape) * 0.7 for w in network.weights])
    return network


def images_of(edge: bool) -> np.ndarray:
    """Images away from 0 and 1, or with over half of the pixels at exactly 0 or 1."""
    x = np.random.default_rng(0).random((8, 4, 4, 1))
    x = np.clip(3 * x - 1, 0, 1) if edge else 0.3 + 0.4 * x
    return x.astype("float32")


def distance_to_boundary(x: np.ndarray, weights: np.ndarray, bias: float) -> float:
    """The length of the shortest r with w·(x + r) + b = 0, x + r in [0, 1], by bisection over r = clip(x - λw) - x."""
    lower, upper = 0.0, 100.0
    sign = np.sign(x @ weights + bias)
    for _ in range(100):
        middle = (lower + upper) / 2
        moved = np.clip(x - middle * sign * weights, 0, 1)
        lower, upper = (middle, upper) if sign * (moved @ weights + bias) > 0 else (lower, middle)
    assert upper < 99
    return float(np.linalg.norm(moved - x))


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(7).normal(size=SIZE)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_it_finds_the_nearest_boundary(edge: bool, scale: float, targeted: bool, weights) -> None:
    x = images_of(edge)
    bias = -float(weights.sum() / 2)
    network = linear_network(scale * weights, scale * bias)
    flat = x.reshape(len(x), SIZE).astype("float64")
    t = flat @ weights + bias
    y = (t > 0).astype("int32")
    outcome = LBFGS(targeted=targeted).search(network, x, 1 - y if targeted else y, batch_size=8)
    expected = np.array([distance_to_boundary(image, weights, bias) for image in flat])
    if not edge:
        np.testing.assert_allclose(expected, np.abs(t) / np.linalg.norm(weights), rtol=1e-9)
    found = np.linalg.norm(outcome.x_adv.reshape(len(x), SIZE) - flat, axis=1)
    assert outcome.fooled.all()
    assert (predict(network, outcome.x_adv).argmax(axis=1) == 1 - y).all()
    assert (found >= 0.9999 * expected).all()
    assert (found <= 1.02 * expected).all()
    np.testing.assert_allclose(outcome.score, -found, rtol=1e-4)
    moved = np.abs(outcome.x_adv - x)[(x == 0) | (x == 1)]
    assert moved.size == 0 or (edge and moved.size > 60 and (moved > 1e-3).mean() > 0.3)


@pytest.mark.parametrize("kind", ["dense", "gmm"])
@pytest.mark.parametrize("targeted", [False, True])
def test_images_are_valid_and_mistakes_untouched(kind: str, targeted: bool) -> None:
    network, x = curved_network(kind), images_of(edge=True)
    right = predict(network, x).argmax(axis=1)
    y = (right + targeted) % 3
    y[::4] = (y[::4] + (-1 if targeted else 1)) % 3  # mistakes, or on target already
    outcome = LBFGS(targeted=targeted, initial_c=0.1, binary_search_steps=6).search(
        network, x, y, batch_size=4
    )
    assert np.isfinite(outcome.x_adv).all()
    assert outcome.x_adv.min() >= 0
    assert outcome.x_adv.max() <= 1
    assert outcome.fooled.sum() >= 5
    after = predict(network, outcome.x_adv).argmax(axis=1)
    np.testing.assert_array_equal((after == y) == targeted, outcome.fooled)
    np.testing.assert_array_equal(outcome.x_adv[::4], x[::4])
    np.testing.assert_array_equal(outcome.score[::4], 0)
    assert (outcome.score[outcome.fooled & (np.arange(8) % 4 > 0)] < -1e-3).all()
    np.testing.assert_array_equal(outcome.x_adv[~outcome.fooled], x[~outcome.fooled])


def test_what_cannot_be_reached_is_returned_as_it_was() -> None:
    network, x = linear_network(np.full(SIZE, 0.01), 5.0), images_of(edge=True)
    outcome = LBFGS(binary_search_steps=4).search(network, x, np.ones(8), batch_size=8)
    assert not outcome.fooled.any()
    np.testing.assert_array_equal(outcome.x_adv, x)
    assert (outcome.score == -np.inf).all()


def test_images_depend_on_the_batch_by_rounding_alone() -> None:
    network, x = curved_network(), images_of(edge=True)
    y = predict(network, x).argmax(axis=1)
    attack = LBFGS(initial_c=0.1, binary_search_steps=5)
    whole = attack.search(network, x, y, batch_size=8)
    parts = attack.search(network, x[::-1], y[::-1], batch_size=3)
    np.testing.assert_allclose(parts.score[::-1], whole.score, rtol=0.02)
    np.testing.assert_allclose(parts.x_adv[::-1], whole.x_adv, atol=0.05)


def test_more_constants_never_find_farther_images() -> None:
    network, x = curved_network(), images_of(edge=True)
    y = predict(network, x).argmax(axis=1)
    scores = [
        LBFGS(initial_c=10.0, binary_search_steps=count).search(network, x, y, batch_size=8).score
        for count in (1, 3, 6)
    ]
    assert (scores[1] >= scores[0] - 1e-3).all()  # a batch of another size rounds in other ways
    assert (scores[2] >= scores[1] - 1e-3).all()
    assert scores[2].mean() > scores[0].mean() + 0.05


def test_any_length_of_memory_finds_the_same(weights) -> None:
    network, x = linear_network(5 * weights, -2.5 * float(weights.sum())), images_of(edge=True)
    y = predict(network, x).argmax(axis=1)
    usual, shortest, longest = (
        LBFGS(history=history, initial_c=0.01, binary_search_steps=9)
        .search(network, x, y, batch_size=8)
        .score
        for history in (5, 1, 20)
    )
    np.testing.assert_allclose(shortest, usual, rtol=0.03)
    np.testing.assert_allclose(longest, usual, rtol=0.03)


def test_passes_are_those_of_its_fields_at_most() -> None:
    network, x = curved_network(), images_of(edge=True)
    y = predict(network, x).argmax(axis=1)
    short = LBFGS(steps=3, binary_search_steps=4).search(network, x, y, batch_size=8)
    assert (short.forward, short.backward) == (8 * 13, 8 * 12)
    long = LBFGS(steps=1000, initial_c=1.0, binary_search_steps=4).search(network, x, y, batch_size=8)
    assert long.backward < 8 * 4 * 60  # it notices that the objective falls no more


def test_fields() -> None:
    attack = LBFGS(10, 3, 0.1, history=2, targeted=True)
    assert LBFGS.from_config(attack.get_config()) == attack
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack
    assert LBFGS().label == "L-BFGS-50 ×15"
    assert attack.label == "L-BFGS-10 ×3, targeted"
    for field in ("steps", "binary_search_steps", "history"):
        with pytest.raises(ValueError, match=f"{field} must be at least 1"):
            LBFGS(**{field: 0})
    with pytest.raises(ValueError, match="initial_c must be positive"):
        LBFGS(initial_c=0.0)
