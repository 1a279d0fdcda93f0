"""Cross-entropy against hand-computed numbers."""

import numpy as np
import pytest
from keras import ops

from kbl.losses import cross_entropy

EIGHTHS = np.log(np.array([[1, 2, 5]]) / 8).astype("float32")  # probabilities 1/8, 2/8, 5/8


@pytest.mark.parametrize(
    ("y", "loss"), [([0], 2.0794415), ([1], 1.3862944), ([2], 0.4700036), ([[0.5, 0.5, 0]], 1.7328680)]
)
def test_values(y, loss) -> None:
    np.testing.assert_allclose(ops.convert_to_numpy(cross_entropy(np.array(y), EIGHTHS)), [loss], rtol=1e-6)


def test_gradient_is_softmax_minus_one_hot(differentiate) -> None:
    _, gradient = differentiate(lambda z: cross_entropy(np.array([2]), z), EIGHTHS)
    np.testing.assert_allclose(gradient, [[0.125, 0.25, -0.375]], rtol=1e-6)
    _, gradient = differentiate(lambda z: cross_entropy(np.array([[0.5, 0.5, 0]]), z), EIGHTHS)
    np.testing.assert_allclose(gradient, [[-0.375, -0.25, 0.625]], rtol=1e-6)


def test_ties(differentiate) -> None:
    losses, gradient = differentiate(lambda z: cross_entropy(np.array([1]), z), [[3, 3, 3, 3]])
    np.testing.assert_allclose(losses, [np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.25, -0.75, 0.25, 0.25]], rtol=1e-6)


def test_saturation(differentiate) -> None:
    """Right beyond doubt the loss is 0, but the gradient e⁻⁶⁰ of the other classes stays; wrong, nothing is cut off."""
    losses, gradient = differentiate(lambda z: cross_entropy(np.array([0, 1]), z), [[60, 0, 0], [1e4, 0, 0]])
    np.testing.assert_allclose(losses, [0, 1e4])
    np.testing.assert_allclose(gradient, [[0, 8.756511e-27, 8.756511e-27], [1, -1, 0]], rtol=1e-5)


@pytest.mark.parametrize("shift", [-1000, 1000])
def test_shift_invariance(shift: int, differentiate) -> None:
    z = np.array([[1.5, -0.5, 0.25, 2], [-3, -1, -2, -8]])  # exact in float32 after the shift
    y = np.array([0, 2])
    expected = differentiate(lambda z: cross_entropy(y, z), z)
    shifted = differentiate(lambda z: cross_entropy(y, z), z + shift)
    np.testing.assert_allclose(shifted[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(shifted[1], expected[1], rtol=1e-6)
