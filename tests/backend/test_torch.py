"""`prepare` changes how fast Keras' layers run on torch, and nothing else."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend

if keras.backend.backend() != "torch":
    pytest.skip("for the torch backend", allow_module_level=True)

CONVOLUTIONS = [
    {"padding": padding, "strides": strides, "kernel_size": kernel}
    for padding, strides, kernel in itertools.product(
        ["valid", "same"], [1, 2, (2, 1)], [1, 2, 3, 4, (3, 2), 5]
    )
]
CONVOLUTIONS += [
    {"padding": padding, "dilation_rate": rate, "kernel_size": kernel}
    for padding, rate, kernel in itertools.product(["valid", "same"], [2, (1, 3)], [2, 3])
]
CONVOLUTIONS += [{"groups": 2, "kernel_size": 3, "padding": p, "strides": 2} for p in ("valid", "same")]
CONVOLUTIONS += [
    {"kernel_size": 3, "use_bias": False},
    {"kernel_size": 3, "activation": "relu", "padding": "same"},
]
POOLINGS = [
    {"pool_size": size, "strides": strides, "padding": padding}
    for size, strides, padding in itertools.product([2, 3, (2, 1)], [None, 1, (1, 2)], ["valid", "same"])
]
SHAPES = [(9, 9, 2), (8, 11, 2)]


def outputs_and_gradient(network, x):
    def weighted(x):
        outputs = network(x)
        weights = np.arange(outputs.numel(), dtype="float32").reshape(tuple(outputs.shape))
        return ops.sum(ops.multiply(ops.sin(outputs), weights / weights.size)), outputs

    return [ops.convert_to_numpy(t) for t in backend.value_and_grad(weighted, ops.convert_to_tensor(x))]


def check_the_same(layer: layers.Layer, shape: tuple[int, ...]) -> None:
    network = keras.Sequential([keras.Input(shape), layer])
    x = np.random.default_rng(0).random((3, *shape)).astype("float32")
    config, expected = network.get_config(), outputs_and_gradient(network, x)
    backend.prepare(network)
    for found, wanted in zip(outputs_and_gradient(network, x), expected, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert network.get_config() == config


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_convolutions(arguments, shape) -> None:
    check_the_same(layers.Conv2D(4, **arguments), shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arguments", POOLINGS, ids=str)
def test_poolings(arguments, shape) -> None:
    check_the_same(layers.MaxPooling2D(**arguments), shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("strides", [1, 2, (2, 1), 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_of_single_pixels(strides, padding: str, shape) -> None:
    check_the_same(layers.AveragePooling2D(1, strides, padding=padding), shape)


NORMALIZATIONS = [
    {},
    {"scale": False},
    {"center": False},
    {"scale": False, "center": False},
    {"momentum": 0.9, "epsilon": 1e-5},
    {"axis": 1},
    {"dtype": "mixed_bfloat16"},
]


@pytest.mark.parametrize("shape", [(9, 7, 4), (6,), (5, 4)], ids=str)
@pytest.mark.parametrize("arguments", NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_batch_normalization(training: bool, arguments, shape) -> None:
    """Outputs, gradients and moving averages are those of Keras."""
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (12, *shape)).astype("float32")
    found = []
    for prepared in (False, True):
        network = keras.Sequential([keras.Input(shape), layers.BatchNormalization(**arguments)])
        drawn = np.random.default_rng(1)
        network.set_weights([0.5 + drawn.random(weight.shape) for weight in network.get_weights()])
        if prepared:
            backend.prepare(network)
        z = ops.convert_to_tensor(x).requires_grad_()
        outputs = network(z, training=training)
        slope = np.random.default_rng(2).normal(size=x.shape).astype("float32")
        (ops.cast(outputs, "float32") * ops.convert_to_tensor(slope)).sum().backward()
        grown = [weight.value.grad for weight in network.trainable_weights]
        found.append([outputs, z.grad, *grown, *network.weights])
    loose = 2e-2 if "dtype" in arguments else 2e-5
    for plain, prepared in zip(*found, strict=True):
        plain, prepared = (ops.convert_to_numpy(ops.cast(t, "float32")) for t in (plain, prepared))
        np.testing.assert_allclose(prepared, plain, rtol=loose, atol=loose * 10)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: layers.Conv2DTranspose(4, 3, strides=2),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.Conv2D(4, 3, data_format="channels_first"),
        lambda: layers.MaxPooling2D(2, data_format="channels_first"),
    ],
)
def test_other_layers_are_left_alone(layer) -> None:
    check_the_same(layer(), (8, 9, 10))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_precisions(policy: str) -> None:
    network = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3, padding="same", dtype=policy)])
    x = np.random.default_rng(0).random((2, 6, 6, 2)).astype("float32")
    expected = network(x)
    backend.prepare(network)
    found = network(x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(found, "float32")),
        ops.convert_to_numpy(ops.cast(expected, "float32")),
        rtol=1e-2 if policy == "mixed_bfloat16" else 1e-6,
        atol=1e-2 if policy == "mixed_bfloat16" else 1e-6,
    )


def whole_network() -> keras.Model:
    block = keras.Sequential([layers.Conv2D(4, 3, strides=2, padding="same"), layers.ReLU()], name="block")
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 4, padding="same"),
            block,
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def test_a_network_may_be_prepared_again_and_again() -> None:
    """Each compiled function of it does; what Keras would do is Keras' own call, not the last one made."""
    network = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)]
    )
    for _ in range(1500):
        backend.prepare(network)
    x = ops.ones((2, 4, 4, 2))
    network.layers[0].call(ops.cast(x, "bfloat16"))
    network.layers[2].call(ops.ones((2, 32)))
    assert network(x).shape == (2, 3)


def test_a_prepared_network_saves_clones_and_reloads(tmp_path) -> None:
    network = whole_network()
    x = np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")
    plain = ops.convert_to_numpy(network(x))
    description = network.to_json()
    backend.prepare(network)
    backend.prepare(network)  # a second time changes nothing
    prepared = ops.convert_to_numpy(network(x))
    np.testing.assert_allclose(prepared, plain, rtol=1e-5, atol=1e-6)
    network.save(tmp_path / "network.keras")
    network.save_weights(tmp_path / "network.weights.h5")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    assert network.to_json() == description
    assert restored.to_json() == description
    clone = keras.models.clone_model(network)
    clone.load_weights(tmp_path / "network.weights.h5")
    for other in (restored, clone, keras.Sequential.from_config(network.get_config())):
        assert "call" not in vars(other.layers[2])  # not prepared itself
        if other not in (restored, clone):
            other.set_weights(network.get_weights())
        np.testing.assert_allclose(ops.convert_to_numpy(other(x)), plain, rtol=1e-5, atol=1e-6)


def test_prepare_reaches_nested_blocks() -> None:
    network = whole_network()
    backend.prepare(network)
    assert "call" in vars(network.layers[2])
    assert "call" in vars(network.layers[1].layers[0])


def test_a_prepared_network_learns_the_same() -> None:
    x = np.random.default_rng(0).random((12, 8, 8, 1)).astype("float32")
    y = np.arange(12) % 3
    plain, prepared = whole_network(), whole_network()
    prepared.set_weights(plain.get_weights())
    backend.prepare(prepared)
    for network in (plain, prepared):
        network.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        network.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(plain.get_weights(), prepared.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
