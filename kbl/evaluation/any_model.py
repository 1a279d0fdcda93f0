"""Any Keras model as a network of kbl: images in [0, 1], channels last, to logits."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl.attacks import AttackWarning, checks, predict
from kbl.backend.parts import call_behind
from kbl.typing import Network, Tensor


def as_network(model: Network, sample: Tensor, *, scale: float = 1.0) -> Network:
    """Return a network that takes images as kbl holds them and returns logits; weights are shared.

    - `scale` multiplies the pixels before the model sees them.
    - A model that expects channels first is given them so.
    - A softmax at the end is taken off. Where it cannot be (a subclassed model), the logarithm of the probabilities
      stands in: the same up to a constant, but where they saturate there is no gradient; an `AttackWarning` says so.

    Args:
        model: a Functional, Sequential or subclassed Keras model.
        sample: a few images, (n, H, W, C) floats in [0, 1].
        scale: 255 for a model that expects pixels in [0, 255].

    Returns:
        The model itself where nothing had to be changed.

    Raises:
        ValueError: the model does not take such images, channels last or first.
    """
    sample = np.asarray(ops.convert_to_numpy(sample), "float32")[:8]
    shape = sample.shape[1:]
    steps: list[Any] = []
    if scale != 1.0:
        steps.append(keras.layers.Rescaling(scale, name="to_pixel_range"))
    refusal = _refusal(model, sample)
    if refusal is not None:
        if len(shape) != 3 or _refusal(model, sample.transpose(0, 3, 1, 2)) is not None:
            raise ValueError(f"{refusal}. Received: images of shape {shape}")
        steps.append(keras.layers.Permute((3, 1, 2), name="to_channels_first"))
    network = _without_softmax(model) or model
    if steps and getattr(network, "inputs", None):
        network = keras.Sequential([keras.Input(shape), *steps, network], name="network")
    elif steps:
        network = Chain([*steps, network])
    outputs = predict(network, sample)
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1.0, atol=1e-3):
        warnings.warn(
            "The model returns probabilities, and its softmax cannot be taken off: their logarithm stands in for the "
            "logits. Where they are exactly 0 or 1 there is no gradient; return logits instead.",
            AttackWarning,
            stacklevel=2,
        )
        network = Chain([network, LogProbabilities()])
    return network


class Chain(keras.Model):
    """Models and layers one after the other; unlike Sequential it asks none of them for its output's shape.

    A subclassed model may not know it.
    """

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(name="network")
        self.parts = parts

    def call(self, x: Tensor) -> Tensor:
        """Return the last one's output."""
        for part in self.parts:
            x = part(x)
        return x


@keras.saving.register_keras_serializable(package="kbl")
class LogProbabilities(keras.layers.Layer):
    """Logarithm of probabilities, (batch, K): logits up to a constant of each row."""

    def call(self, probabilities: Tensor) -> Tensor:
        """Return the logarithms; of 0 that of the smallest normal float32."""
        return ops.log(ops.maximum(probabilities, 1.2e-38))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same shape."""
        return input_shape


def _refusal(model: Network, images: np.ndarray[Any, Any]) -> str | None:
    """Say why the model does not take the images, or return None where it does."""
    given = checks.input_shape(model)
    if given is not None:
        return None if checks.fits(images.shape[1:], given) else f"The model takes images of {given}"
    try:
        predict(model, images)
    except Exception as error:  # a model that does not know its shape may raise anything
        return f"The model fails, saying: {' '.join(str(error).split())[:300]}"
    return None


def _without_softmax(model: Network) -> Network | None:
    """Return the model up to its final softmax, or None where there is none to be found."""
    layers = getattr(model, "layers", [])
    if not layers or getattr(model, "inputs", None) is None or len(model.outputs) != 1:
        return None
    last = layers[-1]
    if isinstance(last, keras.Model):
        inner = _without_softmax(last)
        if inner is None:
            return None
        if isinstance(model, keras.Sequential):
            return keras.Sequential([keras.Input(batch_shape=model.input_shape), *layers[:-1], inner])
        maker, given = call_behind(model.outputs[0])
        if maker is not last or len(given) != 1:
            return None
        return keras.Model(model.inputs[0], inner(given[0]), name=model.name)
    if last.output is not model.outputs[0]:
        return None
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs[0], last.input, name=model.name)
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return None
    if isinstance(last, keras.layers.Activation):
        return keras.Model(model.inputs[0], last.input, name=model.name)
    config = {**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"}
    linear = type(last).from_config(config)
    outputs = linear(last.input)
    linear.set_weights(last.get_weights())
    return keras.Model(model.inputs[0], outputs, name=model.name)
