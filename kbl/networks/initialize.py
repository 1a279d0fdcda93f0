"""First weights that are the same on every backend.

Keras' initializers draw from the framework's own generator, so one seed gives three networks. Here
the distribution that a layer's initializer describes is drawn by NumPy instead.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import initializers, ops

from kbl.typing import Network

# The standard deviation of a standard normal cut at ±2, as Keras has it.
_TRUNCATED_STDDEV = 0.87962566103423978
_FIXED = (initializers.Zeros, initializers.Ones, initializers.Constant, initializers.Identity)


def initialize(network: Network, seed: int) -> None:
    """Draw every randomly initialised weight of a network anew, in place.

    The i-th such weight (in the order of the layers, those of nested models included) is drawn
    from its own stream, `PCG64([seed, i])`, with the distribution of its layer's
    `<weight>_initializer`. Weights that begin constant keep their values.

    Args:
        network: a built Keras model or layer.
        seed: at least 0; the same seed gives the same weights on torch, JAX and TensorFlow.

    Raises:
        ValueError: the seed is negative, the network is not built, or a weight is of an unknown
            random initializer; no weight is changed then.
    """
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0. Received: seed={seed}")
    if not network.built:
        raise ValueError("`network` must be built: call it on an image, or give it an Input.")
    drawn: list[tuple[Any, npt.NDArray[np.float64]]] = []
    seen: set[int] = set()
    # Keras has no public walk over the sublayers of a layer that is no Model.
    for layer in network._flatten_layers():
        inner = {id(w) for sub in layer._flatten_layers(include_self=False) for w in sub.weights}
        for weight in layer.weights:
            if id(weight) in inner or id(weight) in seen:
                continue
            seen.add(id(weight))
            initializer = _initializer(layer, weight)
            if initializer is None or isinstance(initializer, _FIXED):
                continue
            rng = np.random.Generator(np.random.PCG64([seed, len(drawn)]))
            try:
                values = draw(initializer, tuple(weight.shape), rng)
            except ValueError as error:
                raise ValueError(f"Weight {weight.path!r} cannot be drawn: {error}") from error
            drawn.append((weight, values))
    for weight, values in drawn:
        weight.assign(values.astype(np.float32))


def draw(initializer: Any, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw an array from the distribution of a random Keras initializer.

    Args:
        initializer: VarianceScaling (Glorot, He, LeCun), RandomNormal, RandomUniform,
            TruncatedNormal or Orthogonal; its own seed is not used.
        shape: the weight's shape.
        rng: where the numbers are from.

    Returns:
        An array of `shape`, float64.

    Raises:
        ValueError: the initializer is none of these, or cannot fill the shape.
    """
    match initializer:
        case initializers.VarianceScaling():
            variance = initializer.scale / _fan(initializer, shape)
            if initializer.distribution == "uniform":
                limit = math.sqrt(3 * variance)
                return rng.uniform(-limit, limit, shape)
            if initializer.distribution == "untruncated_normal":
                return math.sqrt(variance) * rng.standard_normal(shape)
            return math.sqrt(variance) / _TRUNCATED_STDDEV * _truncated_normal(shape, rng)
        case initializers.RandomNormal():
            return initializer.mean + initializer.stddev * rng.standard_normal(shape)
        case initializers.TruncatedNormal():
            return initializer.mean + initializer.stddev * _truncated_normal(shape, rng)
        case initializers.RandomUniform():
            return rng.uniform(initializer.minval, initializer.maxval, shape)
        case initializers.Orthogonal():
            return float(initializer.gain) * _orthogonal(shape, rng)
    raise ValueError(
        "expected an initializer of the VarianceScaling family, RandomNormal, RandomUniform, "
        f"TruncatedNormal, Orthogonal or a constant. Received: {type(initializer).__name__}"
    )


def _initializer(layer: Any, weight: Any) -> Any | None:
    """Return the initializer of a layer's own weight; None for one that keeps its value."""
    # A depthwise kernel is named "kernel", "depthwise_kernel" or "pointwise_kernel".
    stem = weight.name.removesuffix("_kernel")
    for name in (weight.name, stem, "depthwise" if weight.name == "kernel" else stem):
        initializer = getattr(layer, f"{name}_initializer", None)
        if initializer is not None:
            return initializer
    values = ops.convert_to_numpy(weight)
    if weight.trainable and values.size and (values != values.flat[0]).any():
        raise ValueError(
            f"Weight {weight.path!r} is not constant, and its layer has no "
            f"`{weight.name}_initializer` that says how it was drawn."
        )
    return None


def _fan(initializer: Any, shape: tuple[int, ...]) -> float:
    """Return the number that VarianceScaling divides by, as Keras counts a kernel's fans."""
    inputs: Any = getattr(initializer, "input_axes", None)
    outputs: Any = getattr(initializer, "output_axes", None)
    if inputs is not None and outputs is not None:
        fan_in = math.prod(shape[axis] for axis in inputs)
        fan_out = math.prod(shape[axis] for axis in outputs)
    elif len(shape) < 2:
        fan_in = fan_out = math.prod(shape)
    else:  # (…receptive field, inputs, outputs), also for depthwise kernels
        field = math.prod(shape[:-2])
        fan_in, fan_out = field * shape[-2], field * shape[-1]
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    return max(1.0, fans[initializer.mode])


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw standard normal numbers, those beyond ±2 again."""
    values = rng.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = rng.standard_normal(int(beyond.sum()))
    return values


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a matrix with orthonormal columns (or rows, whichever are fewer), uniformly."""
    if len(shape) < 2:
        raise ValueError(f"Orthogonal needs at least two dimensions. Received: shape={shape}")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return np.reshape(q.T if rows < columns else q, shape)
