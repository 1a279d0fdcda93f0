"""The ε-ball: projection, steps and random starts against numbers worked out by hand."""

import numpy as np
import pytest
from keras import ops

from kbl import random
from kbl.attacks import ball


def column(*values: float) -> np.ndarray:
    return np.array([values], "float32")


def test_project_linf() -> None:
    x = column(0.5, 0.5, 0.5, 0.05, 0.95, 0.5)
    x_adv = column(0.7, 0.3, 0.55, -1.0, 2.0, 0.6)
    projected = ops.convert_to_numpy(
        ball.project(ops.convert_to_tensor(x_adv), ops.convert_to_tensor(x), 0.1, "linf")
    )
    np.testing.assert_allclose(projected, column(0.6, 0.4, 0.55, 0.0, 1.0, 0.6), rtol=1e-6)


def test_project_l2() -> None:
    x = np.array([[0.5, 0.5], [0.5, 0.5], [0.95, 0.5]], "float32")
    x_adv = np.array([[0.8, 0.9], [0.53, 0.54], [1.25, 0.9]], "float32")
    projected = ops.convert_to_numpy(
        ball.project(ops.convert_to_tensor(x_adv), ops.convert_to_tensor(x), 0.1, "l2")
    )
    expected = [[0.56, 0.58], [0.53, 0.54], [1.0, 0.58]]  # the last: 0.95 + 0.06 cut at 1
    np.testing.assert_allclose(projected, expected, rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_for_each_image(norm: str) -> None:
    x = np.full((3, 2, 2, 1), 0.5, "float32")
    radii = np.array([0.0, 0.1, 0.2], "float32").reshape(3, 1, 1, 1)
    projected = ops.convert_to_numpy(
        ball.project(
            ops.convert_to_tensor(x + 0.4), ops.convert_to_tensor(x), ops.convert_to_tensor(radii), norm
        )
    )
    each = radii if norm == "linf" else radii / 2  # four equal pixels
    np.testing.assert_allclose(projected, x + each, rtol=1e-6)


def test_ascend() -> None:
    gradient = np.array([[3, -4, 0], [0, 0, 0], [6e-30, 0, 8e-30], [-3e30, 4e30, 0]], "float32")
    x = np.full((4, 3), 0.5, "float32")

    def step(norm: str) -> np.ndarray:
        moved = ball.ascend(ops.convert_to_tensor(x), ops.convert_to_tensor(gradient), 0.1, norm)
        return ops.convert_to_numpy(moved) - 0.5

    signs = [[1, -1, 0], [0, 0, 0], [1, 0, 1], [-1, 1, 0]]
    np.testing.assert_allclose(step("linf"), 0.1 * np.array(signs), atol=1e-7)
    units = [[0.6, -0.8, 0], [0, 0, 0], [0.6, 0, 0.8], [-0.6, 0.8, 0]]  # of tiny and of huge gradients alike
    np.testing.assert_allclose(step("l2"), 0.1 * np.array(units), atol=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_without_a_gradient_stay(norm: str) -> None:
    gradient = np.array([[np.nan, 2, 0], [np.inf, 1, np.nan], [np.nan] * 3], "float32")
    moved = ball.ascend(ops.zeros((3, 3)), ops.convert_to_tensor(gradient), 0.5, norm)
    second = [0.5, 0.5 if norm == "linf" else 0.0, 0]
    np.testing.assert_allclose(ops.convert_to_numpy(moved), [[0, 0.5, 0], second, [0, 0, 0]], atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.0, 1e-9, 1e-6, 1e-3, 0.03, 8 / 255, 0.3, 0.5, 1.0, 5.0])
def test_the_interior_is_only_just_smaller(epsilon: float) -> None:
    linf, l2 = ball.interior(epsilon, "linf", 784), ball.interior(epsilon, "l2", 784)
    assert max(0, epsilon - 6e-8) <= linf <= epsilon
    assert max(0, epsilon * (1 - 1.1e-5) - 1e-6) <= l2 <= epsilon


@pytest.mark.parametrize("epsilon", [1e-7, 1e-6, 1e-4, 1e-3, 0.1, 1.5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projected_images_lie_inside_in_exact_arithmetic(norm: str, epsilon: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((64, 28, 28, 1)).astype("float32")
    far = ops.convert_to_tensor(x + (rng.normal(size=x.shape) * 3 * epsilon).astype("float32"))
    radius = ball.interior(epsilon, norm, 784)
    projected = ops.convert_to_numpy(ball.project(far, ops.convert_to_tensor(x), radius, norm))
    offset = projected.astype("float64") - x
    length = np.abs(offset).max() if norm == "linf" else np.sqrt((offset**2).sum(axis=(1, 2, 3))).max()
    assert length <= epsilon
    if epsilon == 0.1:
        assert length > 0.0999


def test_random_start_linf_is_uniform_in_the_cube() -> None:
    x = ops.full((200, 5, 5, 1), 0.5)
    start = ball.random_start(x, random.key(0), np.arange(200, dtype="int32"), 0.1, "linf")
    offset = ops.convert_to_numpy(start) - 0.5
    assert np.abs(offset).max() <= 0.1 + 1e-7
    assert offset.mean() == pytest.approx(0, abs=0.002)
    assert offset.std() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_random_start_l2_is_uniform_in_the_ball() -> None:
    """The share of points within radius r is (r/ε)^d; no direction is preferred."""
    x = ops.full((4000, 3, 1, 1), 0.5)
    start = ball.random_start(x, random.key(0), np.arange(4000, dtype="int32"), 0.1, "l2")
    offset = ops.convert_to_numpy(start).reshape(4000, 3) - 0.5
    shares = (np.linalg.norm(offset, axis=1) / 0.1) ** 3
    assert shares.max() <= 1 + 1e-5
    np.testing.assert_allclose(
        np.quantile(shares, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.02
    )
    np.testing.assert_allclose(offset.mean(axis=0), 0, atol=0.002)
    np.testing.assert_allclose(np.cov(offset.T), np.eye(3) * 0.01 / 5, atol=1e-4)  # ε²/(d + 2)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_of_radius_zero_is_the_image(norm: str) -> None:
    x = np.random.default_rng(0).random((4, 3, 3, 1)).astype("float32")
    start = ball.random_start(ops.convert_to_tensor(x), random.key(0), np.arange(4, dtype="int32"), 0.0, norm)
    np.testing.assert_array_equal(ops.convert_to_numpy(start), x)
