"""Bounds worked by hand, their soundness, and what a certificate says."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import evaluate
from kbl.attacks import PGD
from kbl.certification import certify, worst_logits
from kbl.losses import cross_entropy
from kbl.methods import CertifiedTraining
from kbl.networks import build
from kbl.training import RobustModel

RNG = np.random.default_rng(0)


def numbers(tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor))


def small() -> keras.Model:
    """Return a network of z = relu(x1 - x2) and the logits (z, 0.5)."""
    network = keras.Sequential([keras.Input((2,)), layers.Dense(1, activation="relu"), layers.Dense(2)])
    network.set_weights(
        [np.array([[1.0], [-1.0]]), np.zeros(1), np.array([[1.0, 0.0]]), np.array([0.0, 0.5])]
    )
    return network


def gaps(network, x, y) -> np.ndarray:
    z = numbers(network(x))
    return z - z[np.arange(len(y)), y][:, None]


def test_by_hand() -> None:
    """At x = (0.5, 0.4), ε = 0.2: the unit's input lies in [-0.3, 0.5], so its slope is 5/8 and its lift 3/16.

    logit_0 - logit_1 = z - 1/2 ≤ 5/8 · 0.5 + 3/16 - 1/2 = 0; the other way round 1/2 - z ≤ 1/2 - 5/8 · (-0.3) = 11/16,
    which the convex hull allows although z itself is never below 0.
    """
    x = np.array([[0.5, 0.4], [0.5, 0.4]], "float32")
    found = numbers(worst_logits(small(), x, np.array([1, 0]), 0.2))
    np.testing.assert_allclose(found, [[0.0, 0.0], [0.0, 11 / 16]], atol=1e-6)


def test_by_hand_at_the_border_of_the_pixels() -> None:
    """At x = (1, 0.9), ε = 0.2: x1 is at most 1, so the input lies in [-0.2, 0.3]."""
    x = np.array([[1.0, 0.9]], "float32")
    slope = 0.3 / 0.5
    found = numbers(worst_logits(small(), x, np.array([1]), 0.2))
    np.testing.assert_allclose(found, [[slope * 0.3 + slope * 0.2 - 0.5, 0.0]], atol=1e-6)


def test_by_hand_in_l2() -> None:
    """The unit's input is 0.1 ± ε √2."""
    reach = 0.2 * np.sqrt(2)
    slope = (0.1 + reach) / (2 * reach)
    found = numbers(worst_logits(small(), np.array([[0.5, 0.4]], "float32"), np.array([1]), 0.2, "l2"))
    np.testing.assert_allclose(found, [[slope * (0.1 + reach) + slope * (reach - 0.1) - 0.5, 0.0]], atol=1e-6)


def test_units_that_cannot_change_sign_are_exact() -> None:
    x = np.array([[0.9, 0.1]], "float32")  # 0.8 ± 0.2
    np.testing.assert_allclose(
        numbers(worst_logits(small(), x, np.array([0]), 0.1))[0, 1], 0.5 - 0.6, atol=1e-6
    )
    x = np.array([[0.1, 0.9]], "float32")  # -0.8 ± 0.2: off
    np.testing.assert_allclose(numbers(worst_logits(small(), x, np.array([1]), 0.1))[0, 0], -0.5, atol=1e-6)


@pytest.mark.parametrize("head", ["dense", "gmm"])
def test_no_radius_is_no_slack(head) -> None:
    network = build("digits_convnet", head=head, num_classes=10, image_shape=(8, 8, 1), seed=1)
    x, y = RNG.uniform(0, 1, (3, 8, 8, 1)).astype("float32"), np.array([1, 4, 7])
    np.testing.assert_allclose(numbers(worst_logits(network, x, y, 0.0)), gaps(network, x, y), atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("head", ["dense", "gmm"])
def test_no_image_in_the_ball_is_worse(head, norm) -> None:
    """Soundness: neither PGD on the margin nor random corners pass the bound; growing ε only raises it."""
    network = build("digits_convnet", head=head, num_classes=10, image_shape=(8, 8, 1), seed=2)
    for weight in network.weights:
        weight.assign(weight + RNG.normal(0, 0.05, weight.shape).astype("float32"))
    x = RNG.uniform(0, 1, (4, 8, 8, 1)).astype("float32")
    y = numbers(network(x)).argmax(axis=1)
    epsilon = 0.05 if norm == "linf" else 0.3
    bound = numbers(worst_logits(network, x, y, epsilon, norm))
    worst = gaps(network, PGD(epsilon, epsilon / 5, 20, loss="margin", norm=norm)(network, x, y), y)
    for _ in range(20):
        corner = RNG.choice([-1.0, 1.0], x.shape)
        if norm == "l2":
            corner = RNG.normal(size=x.shape)
            corner /= np.sqrt(np.square(corner).sum(axis=(1, 2, 3), keepdims=True))
        worst = np.maximum(worst, gaps(network, np.clip(x + epsilon * corner, 0, 1).astype("float32"), y))
    assert (bound >= worst - 1e-5).all()
    assert (numbers(worst_logits(network, x, y, 2 * epsilon, norm)) >= bound - 1e-5).all()


def test_other_batch_mates_change_nothing() -> None:
    network = build("digits_convnet", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=1)
    x, y = RNG.uniform(0, 1, (3, 8, 8, 1)).astype("float32"), np.array([1, 4, 7])
    whole = numbers(worst_logits(network, x, y, 0.05))
    alone = np.concatenate(
        [numbers(worst_logits(network, x[i : i + 1], y[i : i + 1], 0.05)) for i in range(3)]
    )
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-5)


def test_golden() -> None:
    """The same bounds on every backend."""
    network = build("digits_convnet", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=3)
    x = np.linspace(0, 1, 64, dtype="float32").reshape(1, 8, 8, 1)
    np.testing.assert_allclose(
        numbers(worst_logits(network, x, np.array([2]), 0.05))[0], GOLDEN, rtol=2e-4, atol=1e-5
    )


GOLDEN = [0.262243, 0.443252, 0.0, 0.460425, 0.451647, 0.483636, 0.262767, 0.502975, 0.522159, 0.320167]


def test_certificates() -> None:
    """The margin of (0.9, 0.1) is 0.3 - 2ε: certified up to ε = 0.15, and a wrong label never."""
    network, x = small(), np.array([[0.9, 0.1]] * 3, "float32")
    for epsilon, expected in ((0.0, True), (0.14, True), (0.16, False)):
        found = certify(network, x, np.array([0, 0, 1]), epsilon, batch_size=2)
        assert found.tolist() == [expected, expected, False]
    seen = []
    certify(network, x, np.array([0, 0, 1]), 0.1, batch_size=2, progress=lambda *state: seen.append(state))
    assert seen == [(2, 3), (3, 3)]


def test_certificates_see_the_present_weights() -> None:
    network, x = small(), np.array([[0.9, 0.1]], "float32")
    assert certify(network, x, np.array([0]), 0.1).all()
    network.layers[-1].bias.assign([0.0, 5.0])
    assert not certify(network, x, np.array([0]), 0.1).any()


@pytest.mark.parametrize(("epsilon", "norm"), [(-0.1, "linf"), (float("nan"), "linf"), (0.1, "l1")])
def test_arguments_out_of_range(epsilon, norm) -> None:
    with pytest.raises(ValueError, match="Received"):
        certify(small(), np.array([[0.9, 0.1]], "float32"), np.array([0]), epsilon, norm=norm)


def test_evaluation_reports_the_certified_accuracy() -> None:
    """Certified ≤ robust ≤ clean, at one ε."""
    network = small()
    x = np.array([[0.9, 0.1], [0.72, 0.1], [0.6, 0.4], [0.1, 0.9]], "float32")
    y = np.array([0, 0, 0, 1])
    result = evaluate(network, x, y, [PGD(0.1, 0.05, 5)], certified_epsilon=0.1, diagnostics=False)
    assert result.clean == 0.75  # 0.2 < 0.5: the third is wrong
    assert result.robust == 0.5  # 0.62 - 0.2 < 0.5: the second falls
    assert result.certified is not None
    assert (result.certified["epsilon"], result.certified["accuracy"]) == (0.1, 0.5)
    assert "Certified (lower bound) | 0.1" in result.to_markdown().replace("  ", " ")


# Training.


def test_loss_is_that_of_the_worst_case_and_epsilon_grows() -> None:
    network, x, y = small(), np.array([[0.5, 0.4]], "float32"), np.array([1])
    method = CertifiedTraining(epsilon=0.2, warmup_steps=2)
    clean, worst = method.forward(network, x, method.craft(network, x, y, None, None, None), False)
    np.testing.assert_allclose(numbers(worst), [[0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(numbers(method.loss(y, clean, worst)), np.log(2), rtol=1e-5)
    step = ops.convert_to_tensor(0, "int32")
    assert float(method.craft(network, x, y, None, None, step)[1]) == pytest.approx(0.1)


def test_training_certifies() -> None:
    """Two blobs that plain training separates and certified training keeps apart by a margin."""
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = np.clip(np.stack([0.35 + 0.3 * y, np.full(64, 0.5)], 1) + rng.normal(0, 0.02, (64, 2)), 0, 1).astype(
        "float32"
    )
    network = keras.Sequential([keras.Input((2,)), layers.Dense(8, activation="relu"), layers.Dense(2)])
    rng = np.random.default_rng(1)
    network.set_weights([rng.normal(0, 0.5, weight.shape) for weight in network.weights])
    before = certify(network, x, y, 0.08).mean()
    model = RobustModel(network)
    model.compile(keras.optimizers.Adam(0.05), method=CertifiedTraining(epsilon=0.08, warmup_steps=20))
    history = model.fit(x, y, batch_size=16, epochs=20, validation_data=(x, y), verbose=0).history
    assert before < 0.6
    assert certify(network, x, y, 0.08).mean() > 0.95
    assert history["val_certified_accuracy"][-1] > 0.95
    assert {"loss", "clean_accuracy", "certified_accuracy"} <= set(history)
    assert "adversarial_accuracy" not in history


def test_loss_bounds_that_of_every_attack() -> None:
    network = build("digits_convnet", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=2)
    x, y = RNG.uniform(0, 1, (4, 8, 8, 1)).astype("float32"), np.array([1, 4, 7, 0])
    x_adv = PGD(0.05, 0.01, 10)(network, x, y)
    bound = numbers(cross_entropy(y, worst_logits(network, x, y, 0.05)))
    assert (bound >= numbers(cross_entropy(y, network(x_adv))) - 1e-5).all()


@pytest.mark.parametrize("given", [{"epsilon": 0.0}, {"epsilon": 0.1, "norm": "l1"}])
def test_fields_out_of_range(given) -> None:
    with pytest.raises(ValueError, match="Received"):
        CertifiedTraining(**given)
