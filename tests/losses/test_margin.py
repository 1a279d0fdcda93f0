"""Margin and DLR against hand-computed numbers; all-negative logits are where others fail."""

import numpy as np
import pytest
from keras import ops

from kbl.losses import dlr, margin

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("y", "kappa", "loss"),
    [
        (0, INFINITE, -2.0),
        (0, 3.0, -2.0),
        (0, 0.5, -0.5),
        (0, 0.0, 0.0),
        (1, INFINITE, 2.0),
        (1, 0.0, 2.0),
        (3, 0.5, 6.0),
    ],
)
def test_margin(y: int, kappa: float, loss: float) -> None:
    z = np.array([[5, 3, 1, -1]], "float32")
    assert ops.convert_to_numpy(margin(np.array([y]), z, kappa)).tolist() == [loss]
    assert ops.convert_to_numpy(margin(np.array([y]), z - 1000, kappa)).tolist() == [loss]


@pytest.mark.parametrize(
    ("logits", "kappa", "gradient"),
    [
        ([5, 3, 1, -1], INFINITE, [-1, 1, 0, 0]),
        ([1, 3, 5, -1], INFINITE, [-1, 0, 1, 0]),
        (
            [-5, -3, -1, -9],
            INFINITE,
            [-1, 0, 1, 0],
        ),  # all negative: a masked zero would win (torchattacks #184)
        ([5, 3, 1, -1], 3.0, [-1, 1, 0, 0]),
        ([5, 3, 1, -1], 1.0, [0, 0, 0, 0]),  # flat past κ
        ([5, 3, 1, -1], 2.0, [0, 0, 0, 0]),  # at κ itself
        ([2, 2, 1, 1], INFINITE, [-1, 1, 0, 0]),  # at the decision boundary
        ([2, 2, 1, 1], 0.0, [0, 0, 0, 0]),
        ([3, 2, 2, 1], INFINITE, [-1, 0.5, 0.5, 0]),  # the tied others share
        ([0, 0, 0, 0], INFINITE, [-1, 1 / 3, 1 / 3, 1 / 3]),
        ([1e30, -1e30, 0, 0], INFINITE, [-1, 0, 0.5, 0.5]),
    ],
)
def test_margin_gradient(logits, kappa, gradient, differentiate) -> None:
    _, found = differentiate(lambda z: margin(np.array([0]), z, kappa), [logits])
    np.testing.assert_allclose(found, [gradient], rtol=1e-6)


def test_margin_is_positive_exactly_where_misclassified() -> None:
    z = np.random.default_rng(0).normal(size=(200, 5)).astype("float32") - 7
    y = np.random.default_rng(1).integers(0, 5, 200)
    wrong = z.argmax(axis=1) != y
    assert ((ops.convert_to_numpy(margin(y, z)) > 0) == wrong).all()
    assert ((ops.convert_to_numpy(dlr(y, z)) > 0) == wrong).all()


@pytest.mark.parametrize(
    ("y", "loss"),
    [
        (0, -0.4),  # -(5 - 3.4) / (5 - 1)
        (1, 0.4),
        (2, 1.0),
        (3, 1.5),
    ],
)
def test_dlr(y: int, loss: float) -> None:
    z = np.array([[5, 3.4, 1, -1]], "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(dlr(np.array([y]), z)), [loss], rtol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(dlr(np.array([y]), 8 * z)), [loss], rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "logits", "gradient"),
    [
        # z = (4, 3, 0, -5), y = 0: loss = -(z0 - z1)/(z0 - z2) = -1/4.
        (0, [4, 3, 0, -5], [-3 / 16, 1 / 4, -1 / 16, 0]),
        # y = 1: loss = (z0 - z1)/(z0 - z2) = 1/4.
        (1, [4, 3, 0, -5], [3 / 16, -1 / 4, 1 / 16, 0]),
        # y = 3: loss = (z0 - z3)/(z0 - z2) = 9/4.
        (3, [4, 3, 0, -5], [1 / 4 - 9 / 16, 0, 9 / 16, -1 / 4]),
        (0, [-6, -7, -10, -15], [-3 / 16, 1 / 4, -1 / 16, 0]),
        # At the decision boundary the loss is 0, and only the gap is differentiated.
        (0, [4, 4, 0, -5], [-1 / 4, 1 / 4, 0, 0]),
    ],
)
def test_dlr_gradient(y, logits, gradient, differentiate) -> None:
    _, found = differentiate(lambda z: dlr(np.array([y]), z), [logits])
    np.testing.assert_allclose(found, [gradient], rtol=1e-6, atol=1e-8)


def test_dlr_of_equal_logits_is_finite(differentiate) -> None:
    losses, gradient = differentiate(lambda z: dlr(np.array([1]), z), [[2, 2, 2, 2]])
    assert losses.tolist() == [0]
    np.testing.assert_allclose(gradient, [[1e12 / 3, -1e12, 1e12 / 3, 1e12 / 3]], rtol=1e-6)


@pytest.mark.parametrize("loss", [margin, dlr])
@pytest.mark.parametrize("shift", [-1000, 1000])
def test_shift_invariance(loss, shift: int, differentiate) -> None:
    z = np.array([[1.5, -0.5, 0.25, 2], [-3, -1, -2, -8], [9, 1, 4, 0]])  # exact in float32 after the shift
    y = np.array([0, 2, 0])
    expected = differentiate(lambda z: loss(y, z), z)
    shifted = differentiate(lambda z: loss(y, z), z + shift)
    np.testing.assert_allclose(shifted[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(shifted[1], expected[1], rtol=1e-6)
    assert (np.abs(shifted[1]).sum(axis=1) > 0.1).all()


def test_dlr_needs_three_classes() -> None:
    with pytest.raises(ValueError, match=r"at least 3 classes. Received: logits of shape \(4, 2\)"):
        dlr(np.zeros(4, "int32"), np.zeros((4, 2), "float32"))
