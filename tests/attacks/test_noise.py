"""Noise: what is drawn, which draw is kept, and what it costs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import predict
from kbl.attacks.noise import GaussianNoise, UniformNoise

ATTACKS = {"uniform": UniformNoise(0.2, draws=12), "gaussian": GaussianNoise(0.15, draws=12)}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    network = keras.Sequential([keras.Input((5, 5, 1)), layers.Flatten(), layers.Dense(3)])
    rng = np.random.default_rng(3)
    network.set_weights([rng.normal(size=w.shape) for w in network.weights])
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((20, 5, 5, 1)).astype("float32")


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1)) - shifted[np.arange(len(y)), y]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_first_draw_that_fools_is_kept_or_else_the_worst(
    name: str, targeted: bool, network, images
) -> None:
    attack = type(ATTACKS[name])(0.2, draws=12, targeted=targeted)
    right = predict(network, images).argmax(axis=1)
    y = (right + 1) % 3 if targeted else right
    key, index = random.key(5, 0), ops.arange(len(images), dtype="int32")
    draws = [
        ops.convert_to_numpy(attack.draw(ops.convert_to_tensor(images), random.key(key, i), index))
        for i in range(12)
    ]
    logits = np.stack([predict(network, draw) for draw in draws])
    hits = (logits.argmax(axis=2) == y) == targeted
    losses = np.stack([cross_entropy(z, y) for z in logits]) * (-1 if targeted else 1)
    chosen = np.where(hits.any(axis=0), hits.argmax(axis=0), losses.argmax(axis=0))
    outcome = attack.search(network, images, y, seed=5, batch_size=20)
    assert 1 < hits.any(axis=0).sum() < 18
    assert len(set(chosen)) > 3
    expected = np.stack(draws)[chosen, np.arange(20)]
    np.testing.assert_allclose(outcome.x_adv, expected, atol=1e-6)
    np.testing.assert_array_equal(outcome.fooled, hits.any(axis=0))


def test_uniform_noise_lies_in_the_ball_and_fills_it(network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    x_adv = UniformNoise(0.2, draws=3)(network, images, y)
    offset = x_adv.astype("float64") - images
    assert np.abs(offset).max() <= 0.2
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    inner = offset[(images > 0.2) & (images < 0.8)]
    assert inner.std() == pytest.approx(0.2 / 3**0.5, rel=0.1)


def test_gaussian_noise_has_the_deviation_asked_for() -> None:
    x = ops.full((50, 8, 8, 1), 0.5)
    noisy = GaussianNoise(0.1).draw(x, random.key(0), ops.arange(50, dtype="int32"))
    offset = ops.convert_to_numpy(noisy) - 0.5
    assert offset.std() == pytest.approx(0.1, rel=0.03)
    assert offset.mean() == pytest.approx(0, abs=0.005)
    clipped = ops.convert_to_numpy(GaussianNoise(5.0).draw(x, random.key(0), ops.arange(50, dtype="int32")))
    assert clipped.min() == 0
    assert clipped.max() == 1


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_has_its_own_noise_whatever_the_batch(name: str, network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    whole = ATTACKS[name](network, images, y, batch_size=20)
    parts = ATTACKS[name](network, images, y, batch_size=7)
    alone = ATTACKS[name](network, images[4:5], y[4:5], index=np.array([4]))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    np.testing.assert_allclose(alone[0], whole[4], atol=1e-6)
    assert np.abs(ATTACKS[name](network, images, y, seed=1) - whole).max() > 0.01


def test_a_mistake_is_left_alone_and_no_noise_changes_nothing(network, images) -> None:
    y = (predict(network, images).argmax(axis=1) + 1) % 3
    np.testing.assert_array_equal(ATTACKS["gaussian"](network, images, y), images)
    np.testing.assert_array_equal(UniformNoise(0.0, draws=2)(network, images, (y + 2) % 3), images)
    np.testing.assert_array_equal(GaussianNoise(0.0, draws=2)(network, images, (y + 2) % 3), images)


def test_one_forward_pass_a_draw_and_none_backward(network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    outcome = GaussianNoise(1e-4, draws=30).search(network, images, y, batch_size=20)
    assert not outcome.fooled.any()
    assert (outcome.forward, outcome.backward) == (20 + 30 * 20, 0)


def test_fields() -> None:
    for attack in ATTACKS.values():
        assert type(attack).from_config(attack.get_config()) == attack
        restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
        assert restored == attack
    assert UniformNoise(0.1).label == "uniform noise ×100"
    assert GaussianNoise(0.1, draws=5, targeted=True).label == "Gaussian noise ×5, targeted"
    for wrong in (lambda: UniformNoise(-0.1), lambda: UniformNoise(0.1, draws=0)):
        with pytest.raises(ValueError, match="must be at least"):
            wrong()
    for wrong in (lambda: GaussianNoise(-0.1), lambda: GaussianNoise(0.1, draws=0)):
        with pytest.raises(ValueError, match="must be at least"):
            wrong()
