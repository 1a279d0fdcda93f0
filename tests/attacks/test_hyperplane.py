"""The way to a hyperplane inside the cube: by hand, and beside bisection on the dual in double precision."""

import numpy as np
import pytest
from keras import ops

from kbl.attacks.hyperplane import approach, length


def solve(x, w, gap, norm) -> np.ndarray:
    arrays = (ops.convert_to_tensor(np.asarray(array, "float32")) for array in (x, w, gap))
    return ops.convert_to_numpy(approach(*arrays, norm))


def bisect(x: np.ndarray, w: np.ndarray, gap: float, norm: str) -> np.ndarray:
    """One image: the least radius (L∞) or multiplier (L2) whose clipped step covers the gap."""
    x, w = x.astype("float64"), w.astype("float64")

    def step(t: float) -> np.ndarray:
        free = t * np.sign(gap) * (np.sign(w) if norm == "linf" else w)
        return np.clip(x + free, 0, 1) - x

    low, high = 0.0, 1.0 if norm == "linf" else 1 / np.abs(w[w != 0]).min(initial=1.0)
    if abs(w @ step(high)) <= abs(gap):
        return step(high)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if abs(w @ step(middle)) < abs(gap) else (low, middle)
    return step(high)


BY_HAND = {
    # x, w, gap, the step in L∞, the step in L2
    "free": ([0.5, 0.5], [3, 4], 0.7, [0.1, 0.1], [0.084, 0.112]),
    "other side": ([0.5, 0.5], [3, 4], -0.7, [-0.1, -0.1], [-0.084, -0.112]),
    "mixed signs": ([0.5, 0.5], [-3, 4], 0.7, [-0.1, 0.1], [-0.084, 0.112]),
    "one at its end": ([0.9, 0.2], [1, 1], 0.6, [0.1, 0.5], [0.1, 0.5]),
    "no room for one": ([0.0, 0.5], [-2, 1], 0.25, [0, 0.25], [0, 0.25]),
    "away from the edge": ([0.0, 0.5], [2, 1], 0.3, [0.1, 0.1], [0.12, 0.06]),
    "at both edges": ([1.0, 0.0], [-1, 3], 0.8, [-0.2, 0.2], [-0.08, 0.24]),
    "a pixel without weight": ([0.5, 0.5], [0, 2], 0.4, [0, 0.2], [0, 0.2]),
    "on the hyperplane": ([0.5, 0.5], [3, 4], 0.0, [0, 0], [0, 0]),
    "out of reach": ([0.25, 0.5], [1, -1], 2.0, [0.75, -0.5], [0.75, -0.5]),
    "out of reach, without weight": ([0.25, 0.5], [0, -1], 2.0, [0, -0.5], [0, -0.5]),
    "just in reach": ([0.25, 0.5], [1, -1], 1.25, [0.75, -0.5], [0.75, -0.5]),
    "no gradient": ([0.25, 0.5], [0, 0], 1.0, [0, 0], [0, 0]),
    "no room at all": ([1.0, 0.0], [1, -2], 1.0, [0, 0], [0, 0]),
    "tiny weights": ([0.5, 0.5], [3e-30, 4e-30], 0.7e-30, [0.1, 0.1], [0.084, 0.112]),
    "huge weights": ([0.5, 0.5], [3e30, 4e30], 0.7e30, [0.1, 0.1], [0.084, 0.112]),
    "a huge gap": ([0.25, 0.5], [1e-30, -1e-30], 1e30, [0.75, -0.5], [0.75, -0.5]),
}


@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_by_hand(norm: str, case: str) -> None:
    x, w, gap, linf, l2 = BY_HAND[case]
    np.testing.assert_allclose(solve([x], [w], [gap], norm), [linf if norm == "linf" else l2], atol=2e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_of_a_batch_do_not_meet(norm: str) -> None:
    """All the cases above at once, each as it was alone."""
    x, w, gap, linf, l2 = (np.array(column) for column in zip(*BY_HAND.values(), strict=True))
    together = solve(x, w, gap, norm)
    np.testing.assert_allclose(together, linf if norm == "linf" else l2, atol=2e-7)
    for i in range(len(x)):
        np.testing.assert_array_equal(
            together[i : i + 1], solve(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm)
        )


def problems() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random problems, a third of the pixels at 0 or 1, weights of all magnitudes and of none; some out of reach."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.uniform(-0.2, 1.2, (96, 60)), 0, 1).astype("float32")
    w = rng.normal(size=x.shape) * np.exp(rng.normal(size=x.shape)) * (rng.random(x.shape) < 0.9)
    w = w.astype("float32")
    w[:3] = 0
    gap = rng.normal(size=96)
    sign = np.sign(gap)[:, None]
    reach = (np.maximum(sign * w, 0) * (1 - x) + np.maximum(-sign * w, 0) * x).sum(axis=1)
    gap = np.sign(gap) * np.where(reach > 0, reach, 1) * rng.uniform(0.001, 1.2, 96)
    return x, w, gap.astype("float32")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_beside_bisection(norm: str) -> None:
    x, w, gap = problems()
    step = solve(x, w, gap, norm)
    expected = np.stack([bisect(*problem, norm) for problem in zip(x, w, gap, strict=True)])
    np.testing.assert_allclose(step, expected, atol=3e-6)
    covered = np.abs((w.astype("float64") * step).sum(axis=1)) / np.maximum(np.abs(gap), 1e-12)
    assert 0.1 < (covered < 0.99).mean() < 0.4  # out of reach
    assert (np.abs(covered - 1) < 1e-5).mean() > 0.6
    assert (x + step).min() >= -1e-7
    assert (x + step).max() <= 1 + 1e-7


def test_linf_beside_linear_programming() -> None:
    """Minimise r so that |δ_i| ≤ r, w·δ = gap and x + δ lies in the cube."""
    optimize = pytest.importorskip("scipy.optimize")
    x, w, gap = problems()
    radius = np.abs(solve(x, w, gap, "linf")).max(axis=1)
    solved = 0
    for i in range(3, 40):
        size = x.shape[1]
        bounds = [*zip(-x[i], 1 - x[i], strict=True), (0, None)]
        sides = np.block([[np.eye(size), -np.ones((size, 1))], [-np.eye(size), -np.ones((size, 1))]])
        program = optimize.linprog(
            [*np.zeros(size), 1], sides, np.zeros(2 * size), [[*w[i], 0]], [gap[i]], bounds=bounds
        )
        if program.success:
            solved += 1
            assert radius[i] == pytest.approx(program.fun, abs=2e-6)
    assert solved > 20


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_thousands_of_pixels(norm: str) -> None:
    rng = np.random.default_rng(1)
    x = np.clip(rng.uniform(-0.5, 1.5, (4, 32, 32, 3)), 0, 1).astype("float32")
    w = rng.normal(size=x.shape).astype("float32") ** 3
    gap = np.array([0.1, -10, 300, -1000], "float32")
    step = solve(x, w, gap, norm)
    assert step.shape == x.shape
    expected = [bisect(x[i].ravel(), w[i].ravel(), float(gap[i]), norm) for i in range(4)]
    np.testing.assert_allclose(step.reshape(4, -1), expected, atol=2e-6)


def test_length() -> None:
    offset = ops.convert_to_tensor(np.array([[[3.0, -4.0]], [[0.0, 0.0]]], "float32"))
    for norm, dual, expected in (("linf", False, 4), ("linf", True, 7), ("l2", False, 5), ("l2", True, 5)):
        np.testing.assert_allclose(ops.convert_to_numpy(length(offset, norm, dual)), [expected, 0])
