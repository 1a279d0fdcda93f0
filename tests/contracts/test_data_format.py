"""Images are channels last, whatever Keras' own `image_data_format` says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import pytest
from keras import ops

from kbl import networks
from kbl.attacks import PGD, Square
from kbl.layers import Denoise, Purify, RandomFlipCrop
from kbl.methods import AdversarialTraining
from kbl.training import RobustModel

SHAPE = (8, 6, 2)
RNG = np.random.default_rng(0)
X = RNG.random((4, *SHAPE), dtype="float32")
Y = np.array([0, 1, 2, 0], "int32")


@contextmanager
def channels_first() -> Iterator[None]:
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def same(outcome: Callable[[], np.ndarray]) -> None:
    """Check that an outcome does not depend on the setting."""
    expected = outcome()
    with channels_first():
        found = outcome()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", networks.names())
def test_every_network_has_the_same_layers(name: str, monkeypatch) -> None:
    # Weights do not matter here, and JAX takes seconds to draw them.
    zeros = keras.initializers.Zeros()
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda _, *given, **options: zeros(*given, **options)
    )

    def described() -> list:
        network = getattr(networks, name)("dense", 3, SHAPE)
        return [(layer.get_config(), tuple(layer.output.shape)) for layer in network.layers]

    expected = described()
    with channels_first():
        assert described() == expected


def test_a_residual_network_gives_the_same_logits() -> None:
    same(lambda: logits(networks.build("resnet8", head="gmm", num_classes=3, image_shape=SHAPE, seed=0), X))


def test_denoising_gives_the_same_features() -> None:
    def denoised() -> np.ndarray:
        layer = Denoise("softmax")
        layer.build(X.shape)
        rng = np.random.default_rng(1)
        layer.set_weights([rng.uniform(0.5, 1, weight.shape) for weight in layer.weights])
        return logits(layer, X)

    same(denoised)


def test_purified_images_are_the_same() -> None:
    def purified() -> np.ndarray:
        pixelcnn = networks.pixelcnn((3, 2, 1), 4, filters=2, blocks=1)
        networks.initialize(pixelcnn, 0)
        return logits(Purify(pixelcnn, 0.4), X[:2, :3, :2, :1])

    same(purified)


def test_training_and_attacks_go_the_same_way() -> None:
    def attacked() -> np.ndarray:
        network = networks.build("digits_convnet", head="dense", num_classes=3, image_shape=SHAPE, seed=0)
        model = RobustModel(network, RandomFlipCrop(mirror=True, crop_padding=1), seed=0)
        model.compile(
            keras.optimizers.SGD(0.1),
            method=AdversarialTraining(attack=PGD(0.1, 0.05, 2)),
            run_eagerly=keras.config.backend() != "jax",
        )
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
        return Square(0.1, 10)(network, X, Y)

    same(attacked)


def logits(network: Callable, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(network(x, training=False))
