"""What several tests ask."""

import pytest


@pytest.fixture
def tf32_is_allowed():
    """A function that asks the framework whether a GPU may multiply float32 in TensorFloat-32."""
    return _tf32_is_allowed


def _tf32_is_allowed() -> bool:
    import keras

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
