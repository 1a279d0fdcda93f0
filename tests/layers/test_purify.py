"""Purification by hand, its gradient, and attacks through it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend
from kbl.attacks import PGD
from kbl.layers import MaskedConv2D, Purify, has_gmm_head
from kbl.layers.features import features_and_head
from kbl.networks import build, initialize, pixelcnn

LEVELS = 5  # 0, ¼, ½, ¾, 1


def numbers(tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor))


def preferring(*scores: float) -> keras.Model:
    """A PixelCNN of 1×3 images with the same logits at every pixel."""
    images = keras.Input((1, 3, 1))
    convolution = MaskedConv2D(LEVELS, 3, "A", kernel_initializer="zeros")
    model = keras.Model(images, layers.Reshape((1, 3, 1, LEVELS))(convolution(images)))
    convolution.bias.assign(scores)
    return model


def following() -> keras.Model:
    """A PixelCNN that wants each pixel like the one to its left, and level 0 at the first: logits -(left - v)²."""
    model = preferring(*(-np.square(np.arange(LEVELS) / 4)))
    kernel = np.zeros((3, 3, 1, LEVELS), "float32")
    kernel[1, 0, 0] = 2 * np.arange(LEVELS) / 4  # 2 left v - v² has its maximum where v = left
    model.layers[1].kernel.assign(kernel)
    return model


def purify(model: keras.Model, epsilon: float, *pixels: float) -> list[float]:
    x = np.array(pixels, "float32").reshape(1, 1, 3, 1)
    return numbers(Purify(model, epsilon)(x)).reshape(-1).tolist()


def test_the_likeliest_level_within_reach() -> None:
    model = preferring(0, 1, 5, 2, 3)  # ½, then 1, then ¾
    assert purify(model, 0.3, 0.3, 0.5, 0.9) == pytest.approx([0.5, 0.5, 1.0])
    assert purify(model, 0.26, 0.0, 0.25, 0.75) == pytest.approx([0.25, 0.5, 0.5])


def test_a_pixel_with_no_level_within_reach_stays() -> None:
    assert purify(preferring(0, 1, 5, 2, 3), 0.05, 0.1, 0.4, 0.5) == pytest.approx([0.1, 0.4, 0.5])
    assert purify(preferring(0, 1, 5, 2, 3), 0.0, 0.1, 0.25, 0.5) == pytest.approx([0.1, 0.25, 0.5])


def test_earlier_pixels_count_as_purified() -> None:
    """1, ¾, ½ within ½: the first goes to ½, so the second does, so the third; from the images as they were: ¾, ½."""
    assert purify(following(), 0.5, 1.0, 0.75, 0.5) == pytest.approx([0.5, 0.5, 0.5])
    assert purify(following(), 0.25, 1.0, 0.5, 0.0) == pytest.approx([0.75, 0.75, 0.25])


def test_gradient_is_that_of_the_identity() -> None:
    layer = Purify(following(), 0.3)
    weights = ops.convert_to_tensor(np.array([1.0, -2.0, 3.0], "float32").reshape(1, 1, 3, 1))
    x = ops.convert_to_tensor(np.array([0.9, 0.4, 0.2], "float32").reshape(1, 1, 3, 1))
    _, gradient = backend.value_and_grad(lambda x: (ops.sum(weights * layer(x)), ()), x)
    np.testing.assert_allclose(numbers(gradient), numbers(weights))


@pytest.fixture(scope="module")
def whole() -> keras.Model:
    model = pixelcnn((8, 8, 1), 17, filters=4, blocks=1)
    initialize(model, 0)
    classifier = build("digits_convnet", head="gmm", num_classes=10, image_shape=(8, 8, 1), seed=0)
    return keras.Sequential([keras.Input((8, 8, 1)), Purify(model, 0.2), classifier])


X = np.random.default_rng(0).uniform(0, 1, (6, 8, 8, 1)).astype("float32")


def test_purified_images_lie_within_reach_on_levels(whole) -> None:
    purified = numbers(whole.layers[0](X))
    assert np.abs(purified - X).max() <= 0.2 + 1e-6
    assert np.abs(purified - X).max() > 0.15
    np.testing.assert_allclose(purified * 16, np.rint(purified * 16), atol=1e-4)


def test_the_same_on_every_backend(whole) -> None:
    purified = numbers(whole.layers[0](X))
    np.testing.assert_allclose(purified.sum(axis=(1, 2, 3)), GOLDEN, rtol=1e-5)


GOLDEN = [30.3125, 37.4375, 34.75, 34.5, 36.8125, 29.6875]


def test_an_attack_goes_through(whole) -> None:
    y = numbers(whole(X)).argmax(axis=1)
    x_adv = PGD(0.1, 0.02, 5)(whole, X, y)
    assert 0.05 < np.abs(x_adv - X).max() <= 0.1
    assert (numbers(whole(x_adv)).argmax(axis=1) != y).any()


def test_what_stands_behind_it_is_seen(whole) -> None:
    assert has_gmm_head(whole)
    body, head = features_and_head(whole, gaussian=True)
    np.testing.assert_allclose(numbers(head(body(X))), numbers(whole(X)), rtol=1e-5, atol=1e-5)


def test_saved_and_loaded(whole, tmp_path) -> None:
    whole.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras", safe_mode=True)
    np.testing.assert_allclose(numbers(loaded(X)), numbers(whole(X)), rtol=1e-6)
    assert not loaded.layers[0].trainable_variables


def test_argument_out_of_range() -> None:
    with pytest.raises(ValueError, match="epsilon must be at least 0"):
        Purify(following(), -0.1)
