"""Whether GPUs multiply in TensorFloat-32 is the recipe's choice, not the framework's."""

import keras
import numpy as np
import pytest

from kbl import backend


@pytest.mark.parametrize("wanted", [True, False])
def test_it_is_set(wanted: bool, tf32_is_allowed) -> None:
    backend.allow_tf32(wanted)
    assert tf32_is_allowed() == wanted
    a = np.random.default_rng(0).random((8, 8)).astype("float32")
    product = keras.ops.convert_to_numpy(keras.ops.matmul(a, a))
    np.testing.assert_allclose(product, a.astype("float64") @ a, rtol=1e-6 if not wanted else 1e-2)
