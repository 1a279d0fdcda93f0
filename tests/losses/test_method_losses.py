"""The losses that the methods are made of, against numbers worked out by hand."""

import numpy as np
import pytest
from keras import ops

from kbl.losses import (
    boosted_cross_entropy,
    center_loss,
    coral,
    cross_entropy,
    kl_divergence,
    large_margin_gaussian,
    misclassification_weighted_kl,
    mmd,
    moved_centres,
    supervised_margin,
)
from kbl.losses.labels import smoothed


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.convert_to_tensor(tensor))


def log(*rows) -> np.ndarray:
    return np.log(np.array(rows, "float32"))


CLEAN, ADVERSARIAL = log([0.5, 0.25, 0.25]), log([0.25, 0.5, 0.25])


def test_divergence_by_hand() -> None:
    """½ log 2 + ¼ log ½ + 0."""
    np.testing.assert_allclose(numbers(kl_divergence(CLEAN, ADVERSARIAL)), [0.25 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(numbers(kl_divergence(CLEAN, CLEAN)), [0.0], atol=1e-7)


def test_divergence_of_saturated_logits_is_finite(differentiate) -> None:
    """Where p(a) underflows the divergence is the difference of the logits, and its gradient p(a) - p(x)."""
    clean = ops.convert_to_tensor(np.array([[1e4, 0.0, -1e4]], "float32"))
    loss, gradient = differentiate(lambda z: kl_divergence(clean, z), [[-1e4, 0.0, 1e4]])
    np.testing.assert_allclose(loss, [2e4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-1, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, -1000.0])
def test_divergence_knows_no_constant(differentiate, shift: float) -> None:
    loss, gradient = differentiate(
        lambda z: kl_divergence(ops.convert_to_tensor(CLEAN), z), ADVERSARIAL + shift
    )
    np.testing.assert_allclose(loss, [0.25 * np.log(2)], rtol=1e-4)
    np.testing.assert_allclose(gradient, [[-0.25, 0.25, 0.0]], atol=1e-4)


@pytest.mark.parametrize("y", [np.array([0]), np.eye(3, dtype="float32")[:1]], ids=["index", "one-hot"])
def test_boosted_cross_entropy_by_hand(y) -> None:
    """-log ¼ - log(1 - ½) for the label of share ¼, whose greatest rival has ½."""
    np.testing.assert_allclose(numbers(boosted_cross_entropy(y, ADVERSARIAL)), [np.log(8)], rtol=1e-6)


def test_boosted_cross_entropy_where_a_rival_has_everything(differentiate) -> None:
    """Both logarithms stay what they are: 100 for the label, 100 for what the rival leaves (two classes of e^-100)."""
    loss, gradient = differentiate(lambda z: boosted_cross_entropy(np.array([0]), z), [[0.0, 100.0, 0.0]])
    np.testing.assert_allclose(loss, [200 - np.log(2)], rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert gradient[0, 0] < 0 < gradient[0, 1]


def test_boosted_cross_entropy_of_equal_rivals() -> None:
    """Of two rivals of ⅜ one is the greatest: -log ¼ - log ⅝."""
    loss = boosted_cross_entropy(np.array([0]), log([0.25, 0.375, 0.375]))
    np.testing.assert_allclose(numbers(loss), [np.log(4) - np.log(0.625)], rtol=1e-6)


def test_the_divergence_weighs_by_what_is_wrong() -> None:
    y = np.array([0, 1])
    clean, adversarial = np.repeat(CLEAN, 2, 0), np.repeat(ADVERSARIAL, 2, 0)
    expected = np.array([0.5, 0.75]) * 0.25 * np.log(2)
    np.testing.assert_allclose(
        numbers(misclassification_weighted_kl(y, clean, adversarial)), expected, rtol=1e-6
    )


def test_domain_adaptation_by_hand() -> None:
    """Covariances ((2, 0), (0, 0)) and ((0, 0), (0, 8)): |2| + |8| over four; means (1, 0) and (0, 2) over two."""
    clean = np.array([[0.0, 0.0], [2.0, 0.0]], "float32")
    adversarial = np.array([[0.0, 0.0], [0.0, 4.0]], "float32")
    np.testing.assert_allclose(numbers(coral(clean, adversarial)), 2.5, rtol=1e-6)
    np.testing.assert_allclose(numbers(mmd(clean, adversarial)), 1.5, rtol=1e-6)


def test_one_image_has_no_covariance(differentiate) -> None:
    """Its logits are their own mean: no loss, and nothing to change."""
    other = ops.convert_to_tensor(np.array([[3.0, -1.0]], "float32"))
    loss, gradient = differentiate(lambda z: coral(z, other), [[1.0, 2.0]])
    np.testing.assert_array_equal(loss, 0.0)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0]])


def test_supervised_margin_by_hand() -> None:
    """L1 distances to the centres are 1, 3 and 2: softplus(1 - 3) and softplus(1 - 2), halved."""
    centres = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 4.0], [0.0, 0.0, 1.0]], "float32")
    logits = np.array([[0.0, 1.0, 0.0]], "float32")
    np.testing.assert_allclose(np.abs(logits - centres).sum(1), [1, 5, 2])
    expected = 0.5 * (np.log1p(np.exp(-4)) + np.log1p(np.exp(-1)))
    np.testing.assert_allclose(
        numbers(supervised_margin(np.array([0]), logits, centres)), [expected], rtol=1e-6
    )


def test_moved_centres_by_hand() -> None:
    """Class 0 has two values: c - ½ ((c-2) + (c-4)) / 3 at c = 0 is 1; class 1 none; class 2 one: 6 - ½ (6-2) / 2."""
    centres = np.array([[0.0], [5.0], [6.0]], "float32")
    values = np.array([[2.0], [4.0], [2.0]], "float32")
    moved = moved_centres(centres, np.array([0, 0, 2]), values, 0.5)
    np.testing.assert_allclose(numbers(moved), [[1.0], [5.0], [5.0]], rtol=1e-6)


def test_center_loss_by_hand() -> None:
    centres = np.array([[0.0, 0.0], [3.0, 4.0]], "float32")
    features = np.array([[3.0, 4.0], [3.0, 6.0]], "float32")
    np.testing.assert_allclose(numbers(center_loss(np.array([0, 1]), features, centres)), [12.5, 2.0])


def test_large_margin_by_hand() -> None:
    """Distances 1 and 2: with α = ½ the logits are -1.5 and -2; λ (d + ½ log|Σ|) with ½ log|Σ| = 0.25 for class 0."""
    distances = np.array([[1.0, 2.0]], "float32")
    logits = -distances - np.array([[0.25, 0.0]], "float32")
    expected = np.log1p(np.exp(-2.0 + 1.75)) + 0.1 * 1.25
    loss = large_margin_gaussian(np.array([0]), logits, distances, 0.5, 0.1)
    np.testing.assert_allclose(numbers(loss), [expected], rtol=1e-6)
    plain = large_margin_gaussian(np.array([0]), logits, distances, 0.0, 0.0)
    np.testing.assert_allclose(numbers(plain), numbers(cross_entropy(np.array([0]), logits)), rtol=1e-6)


def test_smoothed_labels() -> None:
    for y in (np.array([1]), np.array([[0.0, 1.0, 0.0, 0.0]])):
        np.testing.assert_allclose(numbers(smoothed(y, 0.2, 4)), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
