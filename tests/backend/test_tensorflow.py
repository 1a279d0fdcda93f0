"""What is true of the TensorFlow backend alone."""

import logging

import keras
import numpy as np
import pytest

from kbl.attacks import PGD
from kbl.networks import build

pytestmark = pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's own graphs")


def test_many_attacks_of_many_shapes_do_not_warn_of_retracing(caplog) -> None:
    """TensorFlow knows functions by their code, and every attack's is the same."""
    network = build("digits_convnet", head="dense", num_classes=10, image_shape=(8, 8, 1), seed=0)
    x, y = np.full((8, 8, 8, 1), 0.5, "float32"), np.arange(8)
    with caplog.at_level(logging.WARNING, logger="tensorflow"):
        for count in range(1, 9):
            PGD(0.1, 0.02, 3)(network, x[:count], y[:count])
            PGD(0.1, 0.02, 3, loss="margin")(network, x[:count], y[:count])
    assert "retracing" not in caplog.text
