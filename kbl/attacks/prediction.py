"""How a network is called on arrays of any number: compiled once for each shape, and few shapes."""

import weakref
from collections.abc import Callable
from typing import Any

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
    """
    forward = compiled(network, "predict", lambda forward, x: ops.cast(forward(x), "float32"))
    parts = []
    for rows in batches(np.arange(len(x)), batch_size):
        batch = filled(x[rows], padded_size(len(rows), batch_size))
        parts.append(to_numpy(forward(batch))[: len(rows)])
    return np.concatenate(parts) if parts else np.zeros((0, network.output_shape[-1]), "float32")


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
