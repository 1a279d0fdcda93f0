"""JSMA beside a search of all pairs in NumPy, step by step."""

from itertools import combinations

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl.attacks import predict
from kbl.attacks.jsma import JSMA, best_pair

FEATURES, CLASSES = 12, 3


@pytest.fixture(scope="module")
def network() -> keras.Model:
    network = keras.Sequential(
        [
            keras.Input((4, 3, 1)),
            layers.Flatten(),
            layers.Dense(6, activation="tanh"),
            layers.Dense(CLASSES),
        ]
    )
    rng = np.random.default_rng(4)
    network.set_weights([rng.normal(size=w.shape) * 0.5 for w in network.weights])
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    x = np.random.default_rng(0).random((24, 4, 3, 1))
    x[x > 0.9], x[x < 0.1] = 1, 0
    return x.astype("float32")


def logits_and_jacobian(network: keras.Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one image of D features: (K,) and (K, D), in float64."""
    first, bias, second, offset = (w.astype("float64") for w in network.get_weights())
    hidden = np.tanh(x @ first + bias)
    return hidden @ second + offset, (second.T * (1 - hidden**2)) @ first.T


def loss(logits: np.ndarray, y: int) -> float:
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[y])


def by_hand(network: keras.Model, x: np.ndarray, y: int, attack: JSMA) -> tuple[np.ndarray, bool, int]:
    """What the attack is to return of one image, whether it is fooled, and how many pairs were changed."""
    x = x.reshape(-1).astype("float64")
    most, sign = int(attack.gamma * FEATURES + 1e-6), np.sign(attack.theta)
    clean = logits_and_jacobian(network, x)[0]
    target = y if attack.targeted else int(np.argmax(np.where(np.arange(CLASSES) == y, -np.inf, clean)))
    seen, now, pairs = [], x.copy(), 0
    while True:
        logits, jacobian = logits_and_jacobian(network, now)
        seen.append((loss(logits, y) * (-1 if attack.targeted else 1), now.copy()))
        if (logits.argmax() == y) == attack.targeted:
            return now, True, pairs
        alpha, beta = jacobian[target], jacobian.sum(axis=0) - jacobian[target]
        moved = np.clip(now + attack.theta, 0, 1)
        best, chosen = 0.0, None
        for p, q in combinations(np.flatnonzero(np.abs(moved - now) > 1e-6), 2):
            a, b = alpha[p] + alpha[q], beta[p] + beta[q]
            after = (np.abs(now - x) > 1e-6) | np.isin(np.arange(FEATURES), (p, q))
            changes = np.sum(np.abs(now - x) > 1e-6)
            room = changes + 2 <= most or after.sum() == changes
            if sign * a > 0 and sign * b < 0 and room and -a * b > best:
                best, chosen = -a * b, [p, q]
        if chosen is None or pairs == attack.steps:
            return max(seen, key=lambda found: found[0])[1], False, pairs
        now[chosen] = moved[chosen]
        pairs += 1


def check(network: keras.Model, x: np.ndarray, y: np.ndarray, attack: JSMA) -> list[tuple]:
    outcome = attack.search(network, x, y, batch_size=8)
    expected = [by_hand(network, image, label, attack) for image, label in zip(x, y, strict=True)]
    np.testing.assert_allclose(outcome.x_adv.reshape(len(x), -1), [e[0] for e in expected], atol=1e-5)
    np.testing.assert_array_equal(outcome.fooled, [e[1] for e in expected])
    assert (np.sum(outcome.x_adv != x, axis=(1, 2, 3)) <= attack.gamma * FEATURES).all()
    assert outcome.x_adv.min() >= 0
    assert outcome.x_adv.max() <= 1
    return expected


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_it_changes_the_pairs_of_the_exhaustive_search(steps: int, network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    expected = check(network, images, y, JSMA(gamma=1.0, steps=steps))
    assert max(pairs for *_, pairs in expected) == min(steps, 3)
    assert {True, False} == {fooled for _, fooled, _ in expected}


@pytest.mark.parametrize("theta", [1.0, -1.0, 0.3, -0.25])
@pytest.mark.parametrize("gamma", [0.35, 1.0])
def test_either_sign_and_small_changes(theta: float, gamma: float, network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    expected = check(network, images, y, JSMA(theta=theta, gamma=gamma))
    assert sum(fooled for _, fooled, _ in expected) > 1
    if gamma < 1 and abs(theta) < 1:
        assert max(pairs for *_, pairs in expected) > gamma * FEATURES / 2  # some pairs are changed again


def test_targeted(network, images) -> None:
    right = predict(network, images).argmax(axis=1)
    y = (right + 1) % CLASSES
    y[::5] = right[::5]
    expected = check(network, images, y, JSMA(gamma=0.7, targeted=True))
    assert 7 < sum(fooled for _, fooled, _ in expected) < 24
    assert all(pairs == 0 for *_, pairs in expected[::5])  # on target from the start


def test_mistakes_are_left_as_they_are(network, images) -> None:
    y = (predict(network, images).argmax(axis=1) + 1) % CLASSES
    outcome = JSMA(gamma=1.0).search(network, images, y, batch_size=8)
    np.testing.assert_array_equal(outcome.x_adv, images)
    assert outcome.fooled.all()


def test_an_image_without_an_admissible_pair_is_done(network) -> None:
    x = np.ones((4, 4, 3, 1), "float32")
    y = predict(network, x).argmax(axis=1)
    outcome = JSMA(gamma=1.0).search(network, x, y, batch_size=8)
    np.testing.assert_array_equal(outcome.x_adv, x)
    assert not outcome.fooled.any()
    assert (outcome.forward, outcome.backward) == (4 * 3, 4 * 2)


def test_what_all_images_of_the_batch_are_does_not_matter(network, images) -> None:
    y = predict(network, images).argmax(axis=1)
    attack = JSMA(theta=0.3, gamma=0.5)
    whole = attack(network, images, y, batch_size=24)
    np.testing.assert_allclose(attack(network, images[::-1], y[::-1], batch_size=5)[::-1], whole, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_the_best_pair_of_all(slope: float, scale: float) -> None:
    """Whether α and -β rise together (few on the front) or against each other (many)."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(60, 15))
    b = slope * a + 0.4 * rng.normal(size=a.shape)
    a[:20], b[:20] = np.round(a[:20]), np.round(b[:20])  # ties
    a[20:30], b[20:30] = a[20:30] - 2, b[20:30] - 2  # few or none admissible
    domain = rng.random(a.shape) < rng.choice([0.1, 0.5, 1.0], size=(60, 1))
    given = [ops.convert_to_tensor((v * scale).astype("float32")) for v in (a, b)]
    pair, found = (ops.convert_to_numpy(t) for t in best_pair(*given, ops.convert_to_tensor(domain)))
    assert {True, False} == set(found.tolist())
    for row in range(60):
        products = [
            (a[row, p] + a[row, q]) * (b[row, p] + b[row, q])
            for p, q in combinations(np.flatnonzero(domain[row]), 2)
            if a[row, p] + a[row, q] > 1e-9 and b[row, p] + b[row, q] > 1e-9
        ]
        assert found[row] == bool(products)
        assert pair[row].sum() == (2 if found[row] else 0)
        if found[row]:
            assert domain[row][pair[row]].all()
            assert a[row][pair[row]].sum() * b[row][pair[row]].sum() == pytest.approx(max(products), rel=1e-5)


def test_fields() -> None:
    attack = JSMA(-0.5, 0.2, targeted=True)
    assert JSMA.from_config(attack.get_config()) == attack
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack)) == attack
    assert JSMA().label == "JSMA, θ = 1, Υ = 0.1"
    assert attack.label == "JSMA, θ = -0.5, Υ = 0.2, targeted"
    for wrong, message in (
        ({"theta": 0.0}, r"theta must be in \[-1, 1\] and not 0"),
        ({"theta": 1.5}, "theta must be in"),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\]"),
        ({"gamma": 1.1}, "gamma must be in"),
        ({"steps": 0}, "steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            JSMA(**wrong)
