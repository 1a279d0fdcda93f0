"""Whether GPUs multiply in TensorFloat-32 is the recipe's choice, not the framework's."""

import keras
import numpy as np
import pytest

from kbl import backend


def allowed() -> bool:
    name = keras.config.backend()
    if name == "torch":
        import torch

        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32
        return torch.backends.cuda.matmul.allow_tf32
    if name == "jax":
        import jax

        return jax.config.jax_default_matmul_precision == "tensorfloat32"
    import tensorflow as tf

    return tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("wanted", [True, False])
def test_it_is_set(wanted: bool) -> None:
    backend.allow_tf32(wanted)
    assert allowed() == wanted
    a = np.random.default_rng(0).random((8, 8)).astype("float32")
    product = keras.ops.convert_to_numpy(keras.ops.matmul(a, a))
    np.testing.assert_allclose(product, a.astype("float64") @ a, rtol=1e-6 if not wanted else 1e-2)
