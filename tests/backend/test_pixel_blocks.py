"""The gradient of a convolution in images of few channels, beside sums over all that an output saw."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend
from kbl.backend import pixel_blocks as module
from kbl.backend.pixel_blocks import pixel_blocks

BACKEND = keras.config.backend()
CASES = [  # height, width, channels, filters, kernel, strides, padding
    (28, 28, 1, 32, 5, 1, "same"),
    (28, 28, 1, 16, 4, 2, "same"),
    (9, 7, 1, 24, (3, 5), (2, 1), "valid"),
    (8, 8, 1, 16, 3, 1, "valid"),
    (11, 10, 1, 16, 3, 4, "valid"),  # some pixels are seen by no output
    (9, 11, 1, 8, (4, 3), 2, "same"),  # padded unevenly
    (6, 6, 2, 18, 3, 1, "same"),
    (7, 5, 3, 16, 3, (1, 2), "same"),
    (7, 7, 1, 64, 7, 1, "same"),
    (5, 5, 4, 16, 3, 1, "same"),
]
LEFT = [  # nothing is gained: many channels or filters, few filters, a small kernel, strides that no block fits
    (8, 8, 5, 8, 3, 1, "same"),
    (8, 8, 3, 32, 3, 1, "same"),
    (8, 8, 1, 4, 3, 1, "same"),
    (8, 8, 1, 16, 2, 1, "same"),
    (9, 9, 1, 16, 3, 3, "same"),
]


def network_of(case: tuple, **options: object) -> keras.Model:
    height, width, channels, filters, kernel, strides, padding = case
    return keras.Sequential(
        [
            keras.Input((height, width, channels)),
            layers.Conv2D(filters, kernel, strides, padding, bias_initializer="normal", **options),
        ]
    )


def gradient_in_images(network: keras.Model, x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    def kernel(forward: object, x: object, slopes: object) -> object:
        return backend.value_and_grad(lambda x: (ops.sum(forward(x) * slopes), ()), x)[1]

    return ops.convert_to_numpy(backend.compiled(network, kernel)(x, slopes))


def by_sums(layer: layers.Layer, size: tuple[int, int], slopes: np.ndarray) -> np.ndarray:
    kernel, (rows, columns) = np.float64(layer.kernel.numpy()), layer.kernel.shape[:2]
    (down, across), outputs = layer.strides, slopes.shape[1:3]
    seen = [(outputs[i] - 1) * layer.strides[i] + layer.kernel.shape[i] for i in (0, 1)]
    missing = [max(seen[i] - size[i], 0) for i in (0, 1)]
    whole = np.zeros((len(slopes), *(max(seen[i], size[i] + missing[i]) for i in (0, 1)), kernel.shape[2]))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            place = slice(down * i, down * i + rows), slice(across * j, across * j + columns)
            whole[:, *place] += np.einsum("nf,ijcf->nijc", slopes[:, i, j], kernel)
    top, left = missing[0] // 2, missing[1] // 2
    return whole[:, top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("case", CASES + LEFT, ids=str)
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
def test_gradients_in_images(case: tuple, biased: bool, monkeypatch) -> None:
    used, real = [], module.PixelBlocks.images
    monkeypatch.setattr(module.PixelBlocks, "images", lambda *given: used.append(1) or real(*given))
    network = network_of(case, use_bias=biased)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *case[:3])).astype("float32")
    slopes = rng.normal(size=(3, *network.output_shape[1:])).astype("float32")
    found = gradient_in_images(network, x, slopes)
    expected = by_sums(network.layers[0], case[:2], slopes)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert bool(used) is (case in CASES)


def test_gradients_in_weights_are_as_ever() -> None:
    """Of the network as Keras made it, and as it was made ready."""
    if BACKEND == "jax":
        pytest.skip("tests/backend/test_jax_layers.py compares them")
    case = CASES[1]
    plain, ready = network_of(case), network_of(case)
    ready.set_weights(plain.get_weights())
    backend.prepare(ready)
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(3, *case[:3])).astype("float32"))
    found = []
    for network in (plain, ready):
        if BACKEND == "torch":
            loss = ops.sum(ops.sin(network(x.requires_grad_())))
            loss.backward()
            found.append([weight.value.grad for weight in network.trainable_weights])
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = ops.sum(ops.sin(network(x)))
            found.append(tape.gradient(loss, network.trainable_weights))
    for one, other in zip(*found, strict=True):
        expected = ops.convert_to_numpy(one)
        np.testing.assert_allclose(ops.convert_to_numpy(other), expected, atol=1e-5 * np.abs(expected).max())


def test_a_block_is_what_its_pixels_were_seen_by() -> None:
    """Two outputs, two apart, of a kernel of three: pixel 2 is the last of the first and the first of the second."""
    blocks = pixel_blocks((5, 5), (2, 2), (3, 3, 1, 8), (2, 2), (0, 0))
    assert (blocks.side, blocks.counts, blocks.strides, blocks.pads) == (4, (2, 2), (2, 2), ((1, 2), (1, 2)))
    assert blocks.reach == (3, 3)
    taps = blocks.taps.reshape(3, 3, 4, 4)
    down = taps[:, 1, :, 0]  # where across all is at its first
    seen = [(output - 1, pixel, down[output, pixel] // 3) for output, pixel in np.argwhere(down < 9).tolist()]
    assert (down[down < 9] % 3 == 0).all()
    assert taps.max() == 9  # none
    assert seen == [(-1, 0, 2), (0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 2, 0), (1, 3, 1)]
