"""The search over the constant, against sequences worked out by hand."""

import numpy as np
import pytest
from keras import ops

from kbl.attacks.binary_search import LARGEST, next_constant


def constants(enough: list[float], initial: list[float], count: int) -> np.ndarray:
    """The constants tried by images that fall from `enough` on, (count, images)."""
    c = ops.convert_to_tensor(np.array(initial, "float32"))
    lower, upper, tried = ops.zeros_like(c), ops.zeros_like(c) + float("inf"), []
    for _ in range(count):
        tried.append(ops.convert_to_numpy(c))
        c, lower, upper = next_constant(
            c >= ops.convert_to_tensor(np.array(enough, "float32")), c, lower, upper
        )
        assert {c.dtype, lower.dtype, upper.dtype} == {c.dtype}
        assert (ops.convert_to_numpy(lower) <= ops.convert_to_numpy(upper)).all()
    return np.stack(tried)


def test_it_grows_tenfold_and_then_halves() -> None:
    tried = constants(enough=[0.3, 30.0, 5.0, 0.0], initial=[1.0] * 4, count=5)
    expected = [
        [1, 0.5, 0.25, 0.375, 0.3125],
        [1, 10, 100, 55, 32.5],
        [1, 10, 5.5, 3.25, 4.375],
        [1, 0.5, 0.25, 0.125, 0.0625],
    ]
    np.testing.assert_array_equal(tried.T, np.array(expected, "float32"))


def test_it_comes_as_near_as_float32_allows() -> None:
    enough = np.random.default_rng(0).uniform(0.01, 50, 20).astype("float32")
    tried = constants(enough.tolist(), [1.0] * 20, 30)
    np.testing.assert_allclose(tried[-1], enough, rtol=1e-6)


def test_it_stays_finite_where_nothing_is_found() -> None:
    tried = constants([float("inf")], [1e-3], 60)
    assert np.isfinite(tried).all()
    assert tried[-1] == LARGEST


@pytest.mark.parametrize("rows", [[0], [2, 1], [1, 2, 0]])
def test_images_do_not_depend_on_each_other(rows: list[int]) -> None:
    enough, initial = [0.3, 30.0, 5.0], [1.0, 2.0, 0.1]
    alone = constants([enough[i] for i in rows], [initial[i] for i in rows], 6)
    np.testing.assert_array_equal(alone, constants(enough, initial, 6)[:, rows])
