"""First weights: the same on every backend, with the distribution that Keras' initializers have."""

import hashlib
import math

import keras
import numpy as np
import pytest
from keras import initializers, layers, ops

from kbl import networks
from kbl.networks.initialize import draw, initialize


def values(network: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(ops.convert_to_tensor(weight)) for weight in network.weights]


def checksum(network: keras.Model) -> str:
    content = b"".join(np.ascontiguousarray(value).tobytes() for value in values(network))
    return hashlib.sha256(content).hexdigest()[:16]


# One number for all backends: whichever runs this test must make these very bits.
@pytest.mark.parametrize(
    ("name", "shape", "head", "bn", "expected"),
    [
        ("digits_convnet", (8, 8, 1), "gmm", False, "929f98cc859d958d"),
        ("digits_convnet", (8, 8, 1), "dense", True, "d0c151c8b2e23667"),
        ("mnist_convnet", (28, 28, 1), "gmm", False, "3437fd520f351686"),
        ("mnist_small_convnet", (28, 28, 1), "gmm", False, "fbef1d1b7852eb0d"),
    ],
)
def test_golden_weights(name, shape, head, bn, expected) -> None:
    network = networks.build(
        name, head=head, num_classes=10, image_shape=shape, batch_normalization=bn, seed=3
    )
    assert checksum(network) == expected


def test_the_seed_decides() -> None:
    network = networks.digits_convnet()
    first = checksum(network)
    initialize(network, 5)
    fifth = checksum(network)
    initialize(network, 6)
    assert len({first, fifth, checksum(network)}) == 3
    other = networks.digits_convnet()
    initialize(other, 5)
    assert checksum(other) == fifth


def test_constant_weights_keep_their_values() -> None:
    network = networks.digits_convnet(batch_normalization=True, head="dense")
    initialize(network, 0)
    for weight, value in zip(network.weights, values(network), strict=True):
        if weight.name in ("beta", "moving_mean", "bias"):
            assert (value == 0).all()
        elif weight.name in ("gamma", "moving_variance"):
            assert (value == 1).all()
        else:
            assert value.std() > 0.01


def test_every_weight_has_its_own_numbers() -> None:
    network = keras.Sequential([layers.Dense(8), layers.Dense(8)])
    network.build((None, 8))
    initialize(network, 0)
    first, second = values(network)[0], values(network)[2]
    assert not np.isclose(first, second).any()


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.GlorotUniform(),
        initializers.GlorotNormal(),
        initializers.HeNormal(),
        initializers.HeUniform(),
        initializers.LecunNormal(),
        initializers.LecunUniform(),
        initializers.VarianceScaling(2.5, "fan_out", "untruncated_normal"),
        initializers.RandomNormal(0.5, 0.2),
        initializers.TruncatedNormal(-0.5, 0.2),
        initializers.RandomUniform(-0.1, 0.3),
        initializers.Orthogonal(1.5),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
@pytest.mark.parametrize("shape", [(200, 300), (5, 5, 30, 80)], ids=str)
def test_the_distribution_is_that_of_keras(initializer, shape) -> None:
    ours = draw(initializer, shape, np.random.default_rng(0))
    # Without a seed of its own an initializer draws another one at each start.
    seeded = type(initializer).from_config({**initializer.get_config(), "seed": 0})
    theirs = ops.convert_to_numpy(seeded(shape))
    assert ours.shape == tuple(theirs.shape)
    scale = float(theirs.std())
    assert ours.mean() == pytest.approx(float(theirs.mean()), abs=0.02 * scale)
    assert ours.std() == pytest.approx(scale, rel=0.02)
    # The tail by a quantile: on torch Keras' truncated normal now and then lets a number past its bounds.
    tails = [np.quantile(np.abs(drawn - drawn.mean()), 0.99) for drawn in (ours, theirs)]
    assert tails[0] == pytest.approx(tails[1], rel=0.03)


def test_standard_deviations_from_the_formula() -> None:
    def deviation(initializer, shape) -> float:
        return draw(initializer, shape, np.random.default_rng(1)).std()

    glorot = initializers.GlorotUniform()
    assert deviation(glorot, (300, 500)) == pytest.approx(math.sqrt(2 / 800), rel=0.01)
    he = initializers.HeNormal()
    assert deviation(he, (5, 5, 32, 64)) == pytest.approx(math.sqrt(2 / (25 * 32)), rel=0.01)
    # A depthwise kernel (H, W, channels, multiplier) has the fans that Keras gives any kernel.
    assert deviation(he, (30, 30, 40, 1)) == pytest.approx(math.sqrt(2 / (900 * 40)), rel=0.01)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (3, 3, 4, 8)], ids=str)
def test_orthogonal_matrices(shape) -> None:
    matrix = draw(initializers.Orthogonal(2.0), shape, np.random.default_rng(0))
    matrix = matrix.reshape(-1, shape[-1])
    gram = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_nested_models_and_differently_named_kernels() -> None:
    inner = keras.Sequential(
        [layers.DepthwiseConv2D(3), layers.SeparableConv2D(4, 3), layers.Flatten()], name="inner"
    )
    network = keras.Sequential([keras.Input((9, 9, 2)), inner, layers.Dense(3)])
    before = values(network)
    initialize(network, 1)
    for weight, old, new in zip(network.weights, before, values(network), strict=True):
        assert (weight.name == "bias") == np.array_equal(old, new), weight.path


def test_a_layer_used_twice_is_drawn_once() -> None:
    shared = layers.Dense(4)
    images = keras.Input((4,))
    network = keras.Model(images, layers.Dense(4)(shared(shared(images))))
    initialize(network, 2)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    initialize(other, 2)
    assert checksum(network) == checksum(other)


class Unknown(initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.reshape(ops.arange(math.prod(shape), dtype=dtype), shape)


class Scaled(layers.Layer):
    """A layer that does not say how its weight was drawn."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer=Unknown(), name="scale")

    def call(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.Dense(3, kernel_initializer=Unknown()), "cannot be drawn: .*Received: Unknown"),
        (Scaled(), "has no `scale_initializer`"),
    ],
)
def test_an_unknown_initializer_is_named_and_nothing_changes(layer, message) -> None:
    network = keras.Sequential([keras.Input((4,)), layers.Dense(4), layer])
    before = checksum(network)
    with pytest.raises(ValueError, match=message):
        initialize(network, 0)
    assert checksum(network) == before


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Received: seed=-1"):
        initialize(networks.digits_convnet(), -1)
    with pytest.raises(ValueError, match="must be built"):
        initialize(keras.Sequential([layers.Dense(2)]), 0)
    with pytest.raises(ValueError, match="at least two dimensions"):
        draw(initializers.Orthogonal(), (3,), np.random.default_rng(0))
