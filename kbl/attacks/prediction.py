"""How a network is called on arrays of any number: compiled once for each shape, and few shapes."""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend
from kbl.typing import Network, Tensor

# network -> {kernel's identity: compiled kernel}; goes with the network.
_COMPILED: "weakref.WeakKeyDictionary[Network, dict[Any, Callable[..., Any]]]" = weakref.WeakKeyDictionary()


def compiled(
    network: Network, identity: Any, kernel: Callable[..., Any], compile_: Any = backend.compiled
) -> Callable[..., Any]:
    """Return the kernel compiled for the network, from an earlier call where there was one with that identity."""
    kernels = _COMPILED.setdefault(network, {})
    if identity not in kernels:
        kernels[identity] = compile_(network, kernel)
    return kernels[identity]


def predict(network: Network, x: np.ndarray[Any, Any], batch_size: int = 256) -> np.ndarray[Any, Any]:
    """Return the logits of images of any number, (N, K) float32, in inference mode and compiled.

    Args:
        network: a Keras model that returns logits.
        x: (N, ...) float32.
        batch_size: images at a time.

    Raises:
        ValueError: the network returns more than one tensor.
    """
    if not network.built:
        network(x[:1], training=False)  # where functions are compiled, variables must not be made inside one
    forward = compiled(network, "predict", _logits)
    parts = []
    for rows in batches(np.arange(len(x)), batch_size):
        batch = filled(x[rows], padded_size(len(rows), batch_size))
        parts.append(to_numpy(forward(batch))[: len(rows)])
    return np.concatenate(parts) if parts else np.zeros((0, network.output_shape[-1]), "float32")


def _logits(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    outputs = keras.tree.flatten(forward(x))
    if len(outputs) != 1:
        raise ValueError(
            f"The network must return one tensor of logits, (N, K). Received: {len(outputs)} outputs"
        )
    return ops.cast(outputs[0], "float32")


def is_right(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tell which images are classified as their labels, (N,) bool; where a logit is NaN there is no class.

    Args:
        logits: (N, K).
        labels: (N,) integers.
    """
    return (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a backend's tensor as an array."""
    return np.asarray(ops.convert_to_numpy(tensor))


def padded_size(count: int, batch_size: int) -> int:
    """Return the rows to compute for `count` images: where each shape compiles, 8, 16, 32 … below a full batch."""
    return min(batch_size, max(8, 1 << max(count - 1, 0).bit_length())) if backend.COMPILES_SHAPES else count


def batches(rows: np.ndarray[Any, Any], size: int) -> list[np.ndarray[Any, Any]]:
    """Return the rows in parts of `size`, the last as short as it is."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def filled(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Repeat the first row until there are `size` rows."""
    if len(array) == size:
        return array
    return np.concatenate([array, np.repeat(array[:1], size - len(array), axis=0)])
