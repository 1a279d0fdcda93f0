"""The class of an image is the same on every backend, and NumPy's."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl import backend
from kbl.attacks.objective import is_hit

ROWS = np.array(
    [
        [1, 3, 3],
        [-0.0, 0.0, -1],
        [0.0, -0.0, -1],
        [-1, -0.0, 0.0],
        [-np.inf, -np.inf, -np.inf],
        [-2, -1, np.inf],
    ],
    "float32",
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_of_equals_it_is_the_first(dtype: str) -> None:
    found = backend.argmax(ops.cast(ROWS, dtype))
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    assert ops.convert_to_numpy(found).tolist() == ROWS.argmax(axis=1).tolist() == [1, 0, 0, 1, 0, 2]


def test_an_attack_and_an_evaluation_agree_on_zeros_of_either_sign() -> None:
    y = np.array([0, 0, 1], "int32")
    logits = ROWS[1:4]
    hits = is_hit(ops.convert_to_tensor(y), ops.convert_to_tensor(logits))
    assert (
        ops.convert_to_numpy(hits).tolist() == (logits.argmax(axis=1) != y).tolist() == [False, False, False]
    )
