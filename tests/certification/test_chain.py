"""Each affine layer's transpose and bias, and what a chain refuses."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl.certification import Affine, chain
from kbl.layers import GMMHead
from kbl.networks import build

RNG = np.random.default_rng(0)


def numbers(tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor))


def randomised(network: keras.Model) -> keras.Model:
    for weight in network.weights:
        low = 0.5 if "variance" in weight.name else -1.0
        weight.assign(RNG.uniform(low, 1.0, weight.shape).astype("float32"))
    return network


CONVOLUTIONS = [
    {"kernel_size": kernel, "strides": strides, "padding": padding}
    for kernel, strides, padding in itertools.product((1, 3, 4, (3, 2)), (1, 2, (2, 1)), ("same", "valid"))
]


@pytest.mark.parametrize("given", CONVOLUTIONS, ids=str)
def test_transpose_of_a_convolution(given) -> None:
    """⟨a, W x + b⟩ = ⟨Wᵀ a, x⟩ + a · b for every a and x."""
    network = randomised(keras.Sequential([keras.Input((7, 8, 2)), layers.Conv2D(3, **given)]))
    _agree(network, (7, 8, 2))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(4),
        layers.Dense(4, use_bias=False),
        layers.Rescaling(2.0, -1.0),
        layers.Reshape((2, 3, 1)),
        layers.BatchNormalization(),
        layers.BatchNormalization(center=False, scale=False),
        layers.Dropout(0.5),
    ],
    ids=lambda layer: layer.name,
)
def test_transpose_of_a_layer(layer) -> None:
    network = randomised(keras.Sequential([keras.Input((6,)), layers.Rescaling(1.0), layer]))
    _agree(network, (6,))


def _agree(network: keras.Model, shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=(1, *shape)).astype("float32")
    z = numbers(network(x, training=False))[0]
    rows = RNG.normal(size=(5, *z.shape)).astype("float32")
    a, constant = rows, 0.0
    for part in reversed(chain(network)):
        assert isinstance(part, Affine)
        a = ops.reshape(a, (-1, *part.shape))
        if part.bias is not None:
            constant = constant + numbers(part.times_bias(a))
        a = part.transpose(a)
    assert tuple(a.shape) == (5, *shape)
    expected = (rows * z).reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(
        (numbers(a) * x).reshape(5, -1).sum(axis=1) + constant, expected, rtol=1e-4, atol=1e-4
    )


def test_gaussian_head_without_what_all_classes_share() -> None:
    network = randomised(keras.Sequential([keras.Input((4,)), GMMHead(3)]))
    x = RNG.normal(size=(2, 4)).astype("float32")
    [part] = chain(network)
    rows = numbers(part.transpose(ops.eye(3)))
    affine = x @ rows.T + numbers(part.bias)
    z = numbers(network(x))
    np.testing.assert_allclose(affine - affine[:, :1], z - z[:, :1], rtol=1e-5, atol=1e-5)


def test_activations_within_layers_and_nested_models_count() -> None:
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation=layers.ReLU()), layers.Activation("relu")]
    )
    network = keras.Sequential([keras.Input((2, 3, 1)), layers.Flatten(), inner, layers.Dense(2)])
    kinds = ["relu" if part == "relu" else part.shape for part in chain(network)]
    assert kinds == [(6,), (5,), "relu", (2,)]  # a second ReLU changes nothing


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.MaxPooling2D(), "MaxPooling2D that is not supported"),
        (layers.Conv2D(4, 3, activation="tanh"), "with activation tanh"),
        (layers.Conv2D(4, 3, activation=layers.LeakyReLU()), "with activation LeakyReLU"),
        (
            layers.Conv2D(4, 3, activation=layers.ReLU(max_value=6)),
            "with activation ReLU that is not supported",
        ),
        (layers.ReLU(max_value=6), "ReLU that is not supported"),
        (layers.Conv2D(4, 3, groups=2), "Conv2D that is not supported"),
        (layers.Conv2D(4, 3, dilation_rate=2), "Conv2D that is not supported"),
        (layers.DepthwiseConv2D(3), "DepthwiseConv2D that is not supported"),
        (layers.Flatten("channels_first"), "Flatten that is not supported"),
    ],
)
def test_what_cannot_be_certified_is_named(layer, message) -> None:
    network = keras.Sequential([keras.Input((8, 8, 2)), layer, layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        chain(network)


def test_what_branches_is_refused() -> None:
    features = keras.Input((4,))
    network = keras.Model(features, layers.Add()([layers.Dense(3)(features), layers.Dense(3)(features)]))
    with pytest.raises(ValueError, match="branches at layer"):
        chain(network)


def test_a_diagonal_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match="GMMHead that is not supported"):
        chain(build("digits_convnet", head="gmm_diagonal", num_classes=3, image_shape=(8, 8, 1), seed=0))


def test_a_network_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="ends with logits"):
        chain(keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")]))
