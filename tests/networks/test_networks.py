"""The networks: their size, their shapes and their heads."""

from typing import get_args

import keras
import numpy as np
import pytest
from keras import ops

from kbl import networks
from kbl.errors import UserError
from kbl.layers import GMMHead
from kbl.networks.heads import HeadName, head_layer

SHAPES = {
    "digits_convnet": (8, 8, 1),
    "mnist_convnet": (28, 28, 1),
    "mnist_small_convnet": (28, 28, 1),
}
# Weights with (head, batch_normalization); with normalisation each bias gives way to four vectors.
WEIGHTS = {
    "digits_convnet": {
        ("gmm", False): 41_856,
        ("gmm", True): 42_192,
        ("dense", False): 41_866,
        ("dense", True): 42_202,
    },
    "mnist_convnet": {
        ("gmm", False): 3_274_624,
        ("gmm", True): 3_277_984,
        ("dense", False): 3_274_634,
        ("dense", True): 3_277_994,
    },
    "mnist_small_convnet": {
        ("gmm", False): 166_396,
        ("gmm", True): 166_840,
        ("dense", False): 166_406,
        ("dense", True): 166_850,
    },
}
CASES = [(name, head, bn) for name in WEIGHTS for head, bn in WEIGHTS[name]]


def build(name: str, head: str = "gmm", bn: bool = False, seed: int = 0) -> keras.Model:
    return networks.build(
        name, head=head, num_classes=10, image_shape=SHAPES[name], batch_normalization=bn, seed=seed
    )


def test_names() -> None:
    assert networks.names()[:3] == tuple(WEIGHTS)


@pytest.mark.parametrize(("name", "head", "bn"), CASES)
def test_size_shape_and_head(name: str, head: str, bn: bool) -> None:
    network = build(name, head, bn)
    assert network.name == name
    assert network.count_params() == WEIGHTS[name][head, bn]
    assert network.output_shape == (None, 10)
    logits = network(np.full((2, *SHAPES[name]), 0.5, "float32"), training=False)
    assert tuple(logits.shape) == (2, 10)
    assert bool(ops.all(ops.isfinite(logits)))
    assert network.layers[-1].name == "head"
    assert isinstance(network.layers[-1], GMMHead if head == "gmm" else keras.layers.Dense)
    normalised = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(normalised) == 3 * bn


@pytest.mark.parametrize("name", SHAPES)
def test_the_default_arguments_are_the_data_sets(name: str) -> None:
    network = getattr(networks, name)()
    assert network.input_shape == (None, *SHAPES[name])
    assert network.count_params() == WEIGHTS[name]["gmm", False]


def test_other_images_and_classes() -> None:
    network = networks.mnist_small_convnet("dense", 7, (9, 12, 3))
    assert tuple(network(np.zeros((1, 9, 12, 3), "float32")).shape) == (1, 7)


@pytest.mark.parametrize("name", ["digits_convnet", "mnist_small_convnet"])
def test_batch_normalisation_stands_before_the_relu(name: str) -> None:
    kinds = [type(layer).__name__ for layer in build(name, bn=True).layers]
    for i, kind in enumerate(kinds):
        if kind == "ReLU":
            assert kinds[i - 1] == "BatchNormalization"
            assert kinds[i - 2] in ("Conv2D", "Dense")
    assert kinds.count("ReLU") == 3


def test_a_saved_network_predicts_the_same(tmp_path) -> None:
    network = build("digits_convnet", bn=True)
    x = np.random.default_rng(0).random((3, 8, 8, 1), dtype="float32")
    network.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(restored(x)), ops.convert_to_numpy(network(x)))


def test_an_unknown_network_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"Received: 'digit_convnet'\. Did you mean 'digits_convnet'"):
        networks.build(
            "digit_convnet",
            head="gmm",
            num_classes=10,
            image_shape=(8, 8, 1),
            batch_normalization=False,
            seed=0,
        )


@pytest.mark.parametrize("name", SHAPES)
def test_every_head_is_described(name: str) -> None:
    described = getattr(networks, name).__doc__
    assert all(f'"{head}"' in described for head in get_args(HeadName))


def test_bad_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r'"gmm", "gmm_diagonal" or "dense"\. Received: head=\'softmax\''):
        head_layer("softmax", 10)
    with pytest.raises(ValueError, match="Received: num_classes=1"):
        head_layer("dense", 1)
