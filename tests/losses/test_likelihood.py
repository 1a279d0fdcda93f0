"""Eq. 6, 7 and 8 of the ATBLR paper against hand-computed numbers."""

import numpy as np
import pytest
from keras import ops

from kbl.losses import atblr_adversarial, atblr_clean, likelihood_regularization

# Probabilities 1/8, 2/8, 5/8. Class 2: cross-entropy 0.4700036, ‖h - μ‖² = -2 z = 0.9400073.
EIGHTHS = np.log(np.array([[1, 2, 5]]) / 8).astype("float32")
Y = np.array([2])


def value(losses) -> float:
    losses = ops.convert_to_numpy(losses)
    assert losses.shape == (1,)
    return float(losses[0])


def test_likelihood_regularization(differentiate) -> None:
    losses, gradient = differentiate(
        lambda z: likelihood_regularization(np.array([1, 2]), z), [[-3, -0.5, -2], [-3, -0.5, -2]]
    )
    assert losses.tolist() == [1, 4]
    assert gradient.tolist() == [[0, -2, 0], [0, 0, -2]]


@pytest.mark.parametrize(("weight", "loss"), [(0.0, 0.4700036), (0.25, 0.7050055), (0.1, 0.5640044)])
def test_clean(weight: float, loss: float) -> None:
    assert value(atblr_clean(Y, EIGHTHS, weight)) == pytest.approx(loss, rel=1e-6)


def test_clean_gradient(differentiate) -> None:
    _, gradient = differentiate(lambda z: atblr_clean(Y, z, 0.25), EIGHTHS)
    np.testing.assert_allclose(gradient, [[0.125, 0.25, -0.375 - 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "bound", "loss"),
    [
        (0.0, None, 0.4700036),
        (0.25, None, 0.2350018),
        (1.0, None, -0.4700036),
        (0.25, 2.0, 0.2350018),
        (0.25, 0.5, 0.3450036),  # 0.4700036 - 0.25·0.5
    ],
)
def test_adversarial(weight, bound, loss) -> None:
    assert value(atblr_adversarial(Y, EIGHTHS, weight, bound)) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("bound", "gradient"),
    [
        (None, -0.375 + 0.5),
        (2.0, -0.375 + 0.5),
        (0.5, -0.375),  # past the bound only the cross-entropy is left
    ],
)
def test_adversarial_gradient(bound, gradient, differentiate) -> None:
    _, found = differentiate(lambda z: atblr_adversarial(Y, z, 0.25, bound), EIGHTHS)
    np.testing.assert_allclose(found, [[0.125, 0.25, gradient]], rtol=1e-6)


def test_gradient_at_the_bound_itself_is_that_past_it(differentiate) -> None:
    losses, gradient = differentiate(lambda z: atblr_adversarial(np.array([0]), z, 1.0, 4.0), [[-2, -2]])
    np.testing.assert_allclose(losses, [np.log(2) - 4], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-0.5, 0.5]], rtol=1e-6)


def test_the_exact_form_has_no_lower_bound() -> None:
    assert value(atblr_adversarial(np.array([0]), np.array([[-1e6, -1e6]], "float32"), 0.5)) == pytest.approx(
        np.log(2) - 1e6
    )


def test_likelihood_logits_take_the_gradient_of_the_regularization(differentiate) -> None:
    """With other values the loss is another, so it is seen which are read; the gradient splits accordingly."""
    other = ops.convert_to_tensor(2 * EIGHTHS)
    loss = value(atblr_adversarial(Y, EIGHTHS, 0.25, likelihood_logits=other))
    assert loss == pytest.approx(0.4700036 - 0.25 * 2 * 0.9400073, abs=1e-6)
    loss = value(atblr_adversarial(Y, EIGHTHS, 0.25, 1.0, other))
    assert loss == pytest.approx(0.4700036 - 0.25, rel=1e-6)
    _, gradient = differentiate(
        lambda z: atblr_adversarial(Y, z, 0.25, likelihood_logits=ops.stop_gradient(z)), EIGHTHS
    )
    np.testing.assert_allclose(gradient, [[0.125, 0.25, -0.375]], rtol=1e-6)
    _, gradient = differentiate(
        lambda z: atblr_adversarial(Y, ops.stop_gradient(z), 0.25, likelihood_logits=z), EIGHTHS
    )
    np.testing.assert_allclose(gradient, [[0, 0, 0.5]], rtol=1e-6)
