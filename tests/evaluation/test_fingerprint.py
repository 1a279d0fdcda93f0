"""What makes an evaluation another one, told the same in every process."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.evaluation import as_network
from kbl.evaluation.fingerprint import description, fingerprint


def test_fingerprints_tell_apart() -> None:
    array = np.arange(6, dtype="float32")
    prints = [
        fingerprint(array),
        fingerprint(array.reshape(2, 3)),
        fingerprint(array.astype("float64")),
        fingerprint(array + 1),
        fingerprint(array, {"seed": 1}),
        fingerprint(array, {"seed": 2}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(array, {"a": 1, "b": 2}) == fingerprint(array.copy(), {"b": 2, "a": 1})


def test_bfloat16_is_hashed() -> None:
    """A network of this dtype is judged, and its records are kept."""
    weights = ops.convert_to_numpy(ops.cast(ops.arange(4, dtype="float32"), "bfloat16"))
    assert weights.dtype.name == "bfloat16"
    assert fingerprint(weights) != fingerprint(weights.astype("float32"))


class Own(layers.Layer):
    """A layer with settings that JSON cannot write and whose text holds an address."""

    def __init__(self, number: int, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def call(self, x):
        return x * self.number

    def get_config(self):
        return {**super().get_config(), "number": self.number, "thing": object()}


class Unsaved(Own):
    """A layer that cannot be saved."""

    def get_config(self):
        raise TypeError("no config")


def network(activation="relu", rate=0.1, number=2, name=None) -> keras.Model:
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, activation=activation), layers.Dropout(rate)]
    )
    parts = [Own(number), Unsaved(2), layers.TimeDistributed(layers.Dense(2, activation=activation))]
    body = [inner, layers.Reshape((2, 2)), *parts, layers.Flatten()]
    return keras.Sequential([keras.Input((3,)), *body], name=name)


def test_a_network_made_again_is_described_as_before() -> None:
    """Names are counted up as in another process, and objects lie elsewhere."""
    first, second = network(), network(name="mine")
    assert first.layers[0].name != second.layers[0].name
    assert description(first) == description(second)
    second.trainable = False
    assert description(first) == description(second)


@pytest.mark.parametrize("changes", [{"activation": "elu"}, {"rate": 0.2}, {"number": 3}])
def test_another_setting_makes_another_description(changes) -> None:
    assert description(network(**changes)) != description(network())


def test_pixels_and_precision_are_described() -> None:
    x = np.zeros((2, 3), "float32")
    assert description(as_network(network(), x, scale=255)) != description(as_network(network(), x, scale=2))
    dense = [
        keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=dtype)])
        for dtype in ("float32", "mixed_bfloat16")
    ]
    assert description(dense[0]) != description(dense[1])


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="wraps a PyTorch module")
def test_a_torch_modules_layers_and_buffers_are_described() -> None:
    import torch

    def wrapped(slope: float, mean: float) -> keras.Model:
        norm = torch.nn.BatchNorm1d(3)
        norm.running_mean += mean
        module = torch.nn.Sequential(norm, torch.nn.LeakyReLU(slope))
        return keras.Sequential([keras.Input((3,)), layers.TorchModuleWrapper(module)])

    assert description(wrapped(0.1, 0.0)) == description(wrapped(0.1, 0.0))
    assert description(wrapped(0.1, 0.0)) != description(wrapped(0.2, 0.0))
    assert description(wrapped(0.1, 0.0)) != description(wrapped(0.1, 1.0))


def test_a_bfloat16_network_keeps_records(tmp_path) -> None:
    made = keras.Sequential([keras.Input((3,), dtype="float32"), layers.Dense(2, dtype="bfloat16")])
    x, y = np.full((4, 3), 0.5, "float32"), np.zeros(4, "int32")
    attack = kbl.attacks.PGD(0.1, 0.1, 1)
    kbl.evaluate(made, x, y, [attack], diagnostics=False, records=tmp_path / "records.jsonl")
