"""Feature denoising against numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl.layers import Denoise

# Two places of two channels.
X = np.array([[[[1.0, 0.0], [0.0, 2.0]]]], "float32")


def opened(kind: str, x: np.ndarray) -> Denoise:
    """A block whose 1×1 convolutions are the identity and whose normalisation scales by (nearly) 1."""
    layer = Denoise(kind)
    layer.build(x.shape)
    channels = x.shape[-1]
    layer.convolution.kernel.assign(np.eye(channels).reshape(1, 1, channels, channels))
    layer.normalisation.gamma.assign(np.full(channels, np.sqrt(1 + 1e-5)))
    return layer


def call(layer: Denoise, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(layer(ops.convert_to_tensor(x), training=False))


def test_dot_product_by_hand() -> None:
    """Products 1, 0, 4: y_1 = ½ (1 · x_1), y_2 = ½ (4 · x_2)."""
    found = call(opened("dot_product", X), X)
    np.testing.assert_allclose(found, np.add(X, [[[[0.5, 0.0], [0.0, 4.0]]]]), rtol=1e-5)


def test_softmax_by_hand() -> None:
    """θ and φ take the sum of the channels (d = 1): products 1, 2, 4, of whose rows the weights are softmaxes."""
    layer = opened("softmax", X)
    for embed in (layer.theta, layer.phi):
        embed.kernel.assign(np.ones((1, 1, 2, 1)))
    first = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    second = np.exp([2.0, 4.0]) / np.exp([2.0, 4.0]).sum()
    expected = np.array([[[[first[0], 2 * first[1]], [second[0], 2 * second[1]]]]])
    np.testing.assert_allclose(call(layer, X), X + expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "centre", "corner"), [("mean", 36 / 9, 12 / 9), ("median", 4.0, 1.0)])
def test_local_by_hand(kind: str, centre: float, corner: float) -> None:
    """Of 0 to 8 in a square the middle has all nine; the corner 0 0 1, 0 0 1, 3 3 4 with its border repeated."""
    x = np.arange(9, dtype="float32").reshape(1, 3, 3, 1)
    found = call(opened(kind, x), x)[0, :, :, 0]
    np.testing.assert_allclose(found[1, 1], 4 + centre, rtol=1e-5)
    np.testing.assert_allclose(found[0, 0], corner, rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "dot_product", "mean", "median"])
def test_a_new_block_passes_its_input_through_and_is_saved(kind: str, tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 6)).astype("float32")
    model = keras.Sequential([keras.Input((4, 3, 6)), Denoise(kind)])
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), x, atol=1e-6)
    model.layers[-1].normalisation.gamma.assign(np.ones(6))
    assert np.abs(ops.convert_to_numpy(model(x)) - x).max() > 0.1
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(restored(x)), ops.convert_to_numpy(model(x)))


def test_unknown_filters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .*Received: kind='gauss'"):
        Denoise("gauss")
