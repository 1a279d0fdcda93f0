"""What the tests of the losses share."""

import numpy as np
import pytest
from keras import ops

from kbl.backend import value_and_grad


@pytest.fixture
def differentiate():
    """A function ``(loss, logits) -> (losses, gradient of their sum)`` in NumPy."""

    def run(loss, logits):
        def total(z):
            losses = loss(z)
            return ops.sum(losses), losses

        losses, gradient = value_and_grad(total, ops.convert_to_tensor(np.asarray(logits, "float32")))
        return ops.convert_to_numpy(losses), ops.convert_to_numpy(gradient)

    return run
