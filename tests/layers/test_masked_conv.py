"""What a masked convolution sees."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl.layers import MaskedConv2D

SIZE = 5


def seen(kind: str, colours: int, channels: int, filters: int, kernel_size: int = 3) -> np.ndarray:
    """Which input channel at which place each output channel of the middle pixel depends on."""
    layer = MaskedConv2D(filters, kernel_size, kind, colours, kernel_initializer="ones", use_bias=False)
    found = np.zeros((SIZE, SIZE, channels, filters))
    for place in np.ndindex(SIZE, SIZE, channels):
        x = np.zeros((1, SIZE, SIZE, channels), "float32")
        x[(0, *place)] = 1.0
        found[place] = ops.convert_to_numpy(layer(x))[0, 2, 2]
    return found


def test_kinds_by_hand() -> None:
    expected = np.zeros((SIZE, SIZE))
    expected[1, 1:4] = 1  # the row above, within the kernel
    expected[2, 1] = 1  # to the left
    np.testing.assert_array_equal(seen("A", 1, 1, 1)[..., 0, 0], expected)
    expected[2, 2] = 1
    np.testing.assert_array_equal(seen("B", 1, 1, 1)[..., 0, 0], expected)


def test_colours_by_hand() -> None:
    """Two colours, two channels each: the second sees the first at the pixel itself, never the other way round."""
    later, none, all_ = [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]
    np.testing.assert_array_equal(seen("A", 2, 4, 4)[2, 2], [later, later, none, none])
    np.testing.assert_array_equal(seen("B", 2, 4, 4)[2, 2], [all_, all_, later, later])


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "C"},
        {"kernel_size": 4},
        {"kernel_size": (3, 3)},
        {"filters": 4, "colours": 3},
        {"colours": 0},
    ],
)
def test_arguments_out_of_range(given) -> None:
    with pytest.raises(ValueError, match="Received"):
        MaskedConv2D(**{"filters": 3, "kernel_size": 3, "kind": "A", **given})


def test_channels_must_be_a_multiple_of_the_colours() -> None:
    with pytest.raises(ValueError, match="multiple of colours=3"):
        MaskedConv2D(3, 3, "A", 3).build((None, 4, 4, 2))


def test_serialisation() -> None:
    layer = MaskedConv2D(6, 3, "B", 3, activation="relu")
    copy = MaskedConv2D.from_config(layer.get_config())
    assert (copy.filters, copy.kernel_size, copy.kind, copy.colours) == (6, (3, 3), "B", 3)
    assert copy.activation is keras.activations.relu
