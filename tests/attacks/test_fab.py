"""FAB on networks whose nearest adversarial image is known."""

import functools
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from kbl import random
from kbl.attacks import predict
from kbl.attacks.attack import Passes
from kbl.attacks.fab import FAB

BACKEND = keras.backend.backend()
CLASSES = 4
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
FORMS = pytest.mark.parametrize("targets", [0, 9])


@functools.cache
def linear_layer() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(CLASSES)])


def linear_network(scale: float = 1.0, shift: float = 0.0) -> keras.Model:
    network = linear_layer()  # one for all tests: only the weights change, so nothing compiles anew
    kernel = np.random.default_rng(3).normal(size=(16, CLASSES))
    network.layers[-1].set_weights([scale * kernel, shift - 0.5 * scale * kernel.sum(axis=0)])
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Some of their pixels are 0 or 1."""
    return np.clip(np.random.default_rng(1).uniform(-0.15, 1.15, (16, 4, 4, 1)), 0, 1).astype("float32")


def distance_to(x: np.ndarray, w: np.ndarray, gap: float, norm: str) -> float:
    """How long a step in the cube must be for w·δ = gap > 0, by bisection."""

    def step(t: float) -> np.ndarray:
        return np.clip(x + t * (np.sign(w) if norm == "linf" else w), 0, 1) - x

    if w @ step(1e6) < gap:
        return np.inf
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if w @ step(middle) < gap else (low, middle)
    return np.abs(step(high)).max() if norm == "linf" else np.linalg.norm(step(high))


def distances(x: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """(N, CLASSES) the least distance at which the linear network prefers each class to y; infinite for y itself."""
    kernel, bias = linear_network().layers[-1].get_weights()
    flat = x.reshape(len(x), -1).astype("float64")
    logits = flat @ kernel.astype("float64") + bias
    return np.array(
        [
            [
                distance_to(
                    flat[i],
                    (kernel[:, k] - kernel[:, y[i]]).astype("float64"),
                    logits[i, y[i]] - logits[i, k],
                    norm,
                )
                if k != y[i]
                else np.inf
                for k in range(CLASSES)
            ]
            for i in range(len(x))
        ]
    )


def lengths(offset: np.ndarray, norm: str) -> np.ndarray:
    flat = offset.reshape(len(offset), -1).astype("float64")
    return np.abs(flat).max(axis=1) if norm == "linf" else np.linalg.norm(flat, axis=1)


def expected_distances(x: np.ndarray, y: np.ndarray, norm: str, targets: int) -> np.ndarray:
    """(N,) with all targets the least distance; else that of the boundary that would be nearest without the cube."""
    apart = distances(x, y, norm)
    if targets:
        return apart.min(axis=1)
    kernel, bias = (weight.astype("float64") for weight in linear_network().layers[-1].get_weights())
    logits, rows = x.reshape(len(x), -1) @ kernel + bias, np.arange(len(x))
    normals = kernel.T[None] - kernel.T[y][:, None]
    sizes = np.abs(normals).sum(axis=2) if norm == "linf" else np.linalg.norm(normals, axis=2)
    gaps = logits[rows, y][:, None] - logits + np.where(np.arange(CLASSES) == y[:, None], np.inf, 0)
    return apart[rows, (gaps / np.maximum(sizes, 1e-12)).argmin(axis=1)]


@NORMS
@FORMS
def test_the_nearest_adversarial_image_of_a_linear_network(norm: str, targets: int, images) -> None:
    """To a few thousandths: the overshoot of 5 % alone would leave more than the final search does."""
    network = linear_network()
    y = predict(network, images).argmax(axis=1)
    nearest = expected_distances(images, y, norm, targets)
    outcome = FAB(steps=4, targets=targets, norm=norm).search(network, images, y, batch_size=16)
    assert outcome.fooled.all()
    assert (predict(network, outcome.x_adv).argmax(axis=1) != y).all()
    found = lengths(outcome.x_adv - images, norm)
    np.testing.assert_allclose(-outcome.score, found, rtol=1e-5)
    assert (found >= distances(images, y, norm).min(axis=1) * (1 - 1e-5)).all()
    assert np.quantile(found / nearest, 0.75) < 1.0015
    assert (found / nearest).max() < 1.01


@NORMS
@FORMS
def test_in_a_ball_it_fools_just_what_can_be_fooled(norm: str, targets: int, images) -> None:
    network = linear_network()
    y = predict(network, images).argmax(axis=1)
    nearest = expected_distances(images, y, norm, targets)
    ordered = np.sort(nearest)
    middle = 5 + np.argmax(ordered[6:12] / ordered[5:11])  # between two images that are far apart
    epsilon = float(np.sqrt(ordered[middle] * ordered[middle + 1]))
    x_adv = FAB(epsilon, steps=4, targets=targets, norm=norm)(network, images, y, batch_size=16)
    fooled = predict(network, x_adv).argmax(axis=1) != y
    np.testing.assert_array_equal(fooled, nearest < epsilon)
    assert (lengths(x_adv - images, norm) <= epsilon).all()
    np.testing.assert_array_equal(x_adv[~fooled], images[~fooled])


@NORMS
def test_the_surface_of_the_ball_is_looked_at_last(norm: str, images) -> None:
    """One step overshoots by 5 %: a ball 1 % larger than need be is reached by the last look alone."""
    network = linear_network()
    x = 0.4 + 0.2 * images[:1]
    y = predict(network, x).argmax(axis=1)
    epsilon = 1.01 * float(distances(x, y, norm).min())
    outcome = FAB(epsilon, steps=1, norm=norm).search(network, x, y, batch_size=16)
    assert outcome.fooled.all()
    assert lengths(outcome.x_adv - x, norm) == pytest.approx(epsilon, rel=1e-3)
    assert (lengths(outcome.x_adv - x, norm) <= epsilon).all()


def test_targets_are_approached_one_after_the_other(images) -> None:
    """One target is the likeliest other class, even where another boundary is nearer; all find the nearest."""
    network = linear_network()
    logits = predict(network, images)
    y = logits.argmax(axis=1)
    apart = distances(images, y, "l2")
    second = np.argsort(logits, axis=1)[:, -2]
    elsewhere = apart.argmin(axis=1) != second
    assert elsewhere.sum() >= 2
    found = {}
    for targets in (1, 9):
        outcome = FAB(steps=4, targets=targets, norm="l2").search(network, images, y, batch_size=16)
        found[targets] = -outcome.score
    assert (found[9] <= found[1] + 1e-6).all()
    assert (found[1] > 1.003 * apart.min(axis=1))[elsewhere].any()
    assert np.quantile(found[9] / apart.min(axis=1), 0.75) < 1.002


@NORMS
@pytest.mark.parametrize(
    ("scale", "shift", "tolerance"), [(1.0, -100.0, 0.01), (1e-12, 0.0, 2e-3), (1e12, 0.0, 2e-3)]
)
def test_the_scale_of_the_logits_changes_nothing(
    norm: str, scale: float, shift: float, tolerance: float, images
) -> None:
    y = predict(linear_network(), images).argmax(axis=1)
    scaled, plain = (
        FAB(steps=4, norm=norm).search(linear_network(*form), images, y, batch_size=16).score
        for form in ((scale, shift), ())
    )
    np.testing.assert_allclose(scaled, plain, rtol=tolerance)


@NORMS
@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_without_a_gradient_images_stay(norm: str, epsilon: float | None, images) -> None:
    network = linear_network()
    network.layers[-1].set_weights([np.zeros((16, CLASSES)), np.array([2.0, 0, 1, -3])])
    outcome = FAB(epsilon, steps=3, restarts=2, norm=norm).search(
        network, images, np.zeros(16), batch_size=16
    )
    np.testing.assert_array_equal(outcome.x_adv, images)
    assert not outcome.fooled.any()
    assert (outcome.score == -np.inf).all()


@pytest.mark.parametrize("epsilon", [None, 0.3])
@FORMS
def test_a_clean_mistake_is_left_as_it_is(epsilon: float | None, targets: int, images) -> None:
    network = linear_network()
    y = predict(network, images).argmax(axis=1)
    y[::3] = (y[::3] + 1) % CLASSES
    outcome = FAB(epsilon, steps=3, restarts=2, targets=targets).search(network, images, y, batch_size=16)
    np.testing.assert_array_equal(outcome.x_adv[::3], images[::3])
    assert outcome.fooled[::3].all()
    assert (outcome.score[::3] == 0).all()


def curved_network() -> keras.Model:
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(12, activation="tanh"), layers.Dense(CLASSES)]
    )
    rng = np.random.default_rng(5)
    network.set_weights([rng.normal(size=weight.shape) for weight in network.weights])
    return network


def test_restarts_begin_elsewhere_and_never_find_less(images) -> None:
    network = curved_network()
    y = predict(network, images).argmax(axis=1)
    attack = FAB(steps=6)
    found = [
        -replace(attack, restarts=restarts).search(network, images, y, batch_size=16).score
        for restarts in (1, 4)
    ]
    assert (found[1] <= found[0]).all()
    assert (found[1] < 0.99 * found[0]).any()


def test_where_starts_lie(images) -> None:
    """The first round of targets starts at the image, the next within half of ε."""
    attack = FAB(0.2, targets=2, restarts=2)
    traced = attack.with_numbers(attack.numbers((4, 4, 1)))
    logits = np.tile(np.array([[0, 3, 1, 2]], "float32"), (16, 1))
    state = {
        "x": keras.ops.convert_to_tensor(images),
        "best": keras.ops.convert_to_tensor(images),
        "y": keras.ops.ones((16,), "int32"),
        "index": keras.ops.arange(16, dtype="int32"),
        "score": keras.ops.full((16,), -np.inf),
        "fooled": keras.ops.zeros((16,), "bool"),
        "done": keras.ops.zeros((16,), "bool"),
    }
    for restart in range(4):
        restarts = keras.ops.full((16,), restart, "int32")
        state |= {"restart": restarts, "key": random.key(0, restarts)}
        begun = traced.begin(lambda x: keras.ops.convert_to_tensor(logits), state)
        others, start = (keras.ops.convert_to_numpy(begun[name]) for name in ("others", "x_adv"))
        np.testing.assert_array_equal(others, np.full((16, 1), (3, 2)[restart % 2]))
        away = lengths(start - images, "linf")
        if restart < 2:
            assert away.max() == 0
        else:
            assert 0.05 < away.max() <= 0.1


def test_passes_are_those_taken(images) -> None:
    if BACKEND != "torch":
        pytest.skip("passes are counted where Python makes them")
    calls = []

    class Counting(layers.Layer):
        def call(self, x):
            calls.append(len(x))
            return 1.0 * x

    network = keras.Sequential([keras.Input((4, 4, 1)), Counting(), layers.Flatten(), layers.Dense(CLASSES)])
    y = predict(network, images).argmax(axis=1)
    for attack in (FAB(steps=5), FAB(steps=5, targets=2), FAB(1e-4, steps=5), FAB(1e-4, steps=5, targets=9)):
        calls.clear()
        outcome = attack.search(network, images, y, batch_size=16)
        assert sum(calls) - 8 == outcome.forward  # eight images are the sample that is checked
        linearizations = 5 * (CLASSES - 1) if attack.targets == 0 else 5 * min(attack.targets, CLASSES - 1)
        assert outcome.backward == 16 * linearizations


def test_fields() -> None:
    assert FAB().minimum_norm
    assert not FAB(0.1).minimum_norm
    assert FAB(targets=9).starts(10) == 9
    assert FAB(targets=9, restarts=2).starts(3) == 4
    assert FAB().passes(10) == (Passes(1, 0), Passes(10, 9), Passes(5, 0))
    assert FAB(0.1, targets=9).passes(10) == (Passes(1, 0), Passes(2, 1), Passes(1, 0))
    assert FAB(targets=9).label == "FAB-T-100 ×9"
    assert FAB(0.5, steps=20, restarts=3, norm="l2").label == "FAB-20 ×3, L2"
    for attack in (FAB(), FAB(0.1, 20, 2, 9, "l2")):
        config = keras.saving.serialize_keras_object(attack)
        assert keras.saving.deserialize_keras_object(config) == attack


@pytest.mark.parametrize(
    "field",
    [
        {"epsilon": -0.1},
        {"steps": 0},
        {"restarts": 0},
        {"targets": -1},
        {"norm": "l1"},
        {"alpha_max": -0.1},
        {"alpha_max": 1.1},
        {"eta": 0.9},
        {"beta": -0.1},
        {"beta": 1.1},
    ],
)
def test_a_field_out_of_range_is_named(field: dict) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(field))} must .* Received: "):
        FAB(**field)
