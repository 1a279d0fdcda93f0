"""Functional models that let go of what they no longer need give what Keras' do."""

import gc
import weakref
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras import layers, ops

if keras.backend.backend() != "torch":
    pytest.skip("it is PyTorch's", allow_module_level=True)

from kbl import backend


class Witness(layers.Layer):
    """Returns twice its input, and counts which outputs of all witnesses are still there."""

    seen: ClassVar[list] = []

    def call(self, inputs):
        gc.collect()  # Keras' tree utilities leave cycles
        alive = [each() is not None for each, _ in self.seen]
        outputs = 2.0 * inputs
        self.seen.append((weakref.ref(outputs), alive))
        return outputs


def chain():
    x = keras.Input((3,))
    return keras.Model(x, layers.Dense(2)(layers.ReLU()(layers.Dense(4)(x))))


def several_ends():
    """Two inputs; an output that others read, one that is an input, and one given twice."""
    a, b = keras.Input((3,)), keras.Input((3,))
    middle = layers.Dense(3)(a)
    end = layers.Add()([layers.Dense(3)(middle), b])
    return keras.Model([a, b], {"end": end, "middle": middle, "again": [end, a]})


def shared_layer():
    x, dense = keras.Input((3,)), layers.Dense(3)
    return keras.Model(x, layers.Add()([dense(dense(x)), dense(x)]))


def nested():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="relu"), shared_layer()])
    x = keras.Input((3,))
    return keras.Model(x, layers.Subtract()([inner(x), inner(2.0 * x)]))


def from_the_middle():
    whole = chain()
    return keras.Model(whole.layers[1].output, whole.output)


def with_an_operation():
    x = keras.Input((3,))
    one, other = ops.split(layers.Dense(4)(x), 2, axis=-1)
    return keras.Model(x, ops.where(one > 0, one, other))


@pytest.mark.parametrize(
    "build",
    [chain, several_ends, shared_layer, nested, from_the_middle, with_an_operation],
    ids=lambda build: build.__name__,
)
def test_results_and_gradients(build) -> None:
    keras.utils.set_random_seed(0)
    model = build()
    shapes = [(5, *tensor.shape[1:]) for tensor in model.inputs]
    rng = np.random.default_rng(0)
    x = [ops.convert_to_tensor(rng.normal(size=shape).astype("float32")) for shape in shapes]
    x = x[0] if len(x) == 1 else x

    def outputs():
        found = model(x)
        _, slopes = backend.value_and_grad(lambda z: (sum(map(ops.sum, keras.tree.flatten(model(z)))), ()), x)
        return keras.tree.map_structure(ops.convert_to_numpy, (found, slopes))

    before = outputs()
    for _ in range(2):
        backend.prepare(model)
    keras.tree.map_structure(np.testing.assert_array_equal, outputs(), before)


def test_only_what_is_needed_is_there() -> None:
    """Of a chain the input of the layer that is run, of a shortcut what it adds."""
    x = keras.Input((3,))
    first = Witness()(x)
    second = Witness()(first)
    third = Witness()(second)
    end = Witness()(layers.Add()([first, third]))
    model = keras.Model(x, end)
    backend.prepare(model)
    Witness.seen.clear()
    assert float(ops.sum(model(ops.ones((1, 3))))) == 60.0
    assert [alive for _, alive in Witness.seen] == [[], [True], [True, True], [False, False, False]]


def test_a_model_of_its_layers_is_left_whole() -> None:
    """Another model over the same layers, which asks for an intermediate tensor, finds it."""
    model = chain()
    inner = keras.Model(model.input, [model.layers[1].output, model.output])
    backend.prepare(model)
    features, end = inner(ops.ones((2, 3)))
    assert features.shape == (2, 4)
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (end, model(ops.ones((2, 3))))))


def test_symbolic_calls_are_keras_own() -> None:
    model = several_ends()
    backend.prepare(model)
    outputs = model([keras.Input((3,)), keras.Input((3,))])
    assert outputs["end"].shape == (None, 3)
    assert model.compute_output_shape([(7, 3), (7, 3)])["middle"] == (7, 3)
