"""What is checked before an attack spends time: every message names the argument, what was expected and received."""

import warnings
from typing import Any

import numpy as np
from keras import ops

from kbl.typing import Network, Tensor


class AttackWarning(UserWarning):
    """The attack runs, but its outcome would mislead."""


def images(x: Tensor) -> np.ndarray[Any, Any]:
    """Return images as float32 (N, ...) in [0, 1].

    Raises:
        ValueError: wrong rank, NaN or infinite pixels, or values outside [0, 1].
    """
    array = np.asarray(ops.convert_to_numpy(x))
    if array.ndim < 2:
        raise ValueError(f"x must be a batch of images, (N, ...). Received: shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"x must hold floats in [0, 1]; divide 8-bit pixels by 255. Received: dtype {array.dtype}"
        )
    array = array.astype("float32", copy=False)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(f"x must be finite. Received: {count} NaN or infinite values")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            "x must lie in [0, 1]: the network scales its input itself. "
            f"Received: values from {array.min():.6g} to {array.max():.6g}"
        )
    return array


def fit(network: Network, shape: tuple[int, ...]) -> None:
    """Check that a network takes images of a shape, where it tells which.

    Raises:
        ValueError: it does not.
    """
    expected = input_shape(network)
    if expected is not None and not fits(shape, expected):
        raise ValueError(f"x must hold images of shape {expected}. Received: images of shape {shape}")


def input_shape(network: Network) -> tuple[int | None, ...] | None:
    """Return the shape of the images that a network takes, None where it does not tell."""
    try:
        shape = network.input_shape
    except (AttributeError, ValueError):  # a subclassed model does not know
        return None
    return tuple(shape[1:]) if isinstance(shape, tuple) else None


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Tell whether a shape is as expected, None standing for any length."""
    return len(shape) == len(expected) and all(
        want in (None, have) for have, want in zip(shape, expected, strict=True)
    )


def labels(y: Tensor, count: int, num_classes: int) -> np.ndarray[Any, Any]:
    """Return labels as int32 (N,).

    Raises:
        ValueError: not (N,), (N, 1) or one-hot (N, K); not integers; outside 0 … K-1; or not as many as images.
    """
    array = np.asarray(ops.convert_to_numpy(y))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.shape[1] == num_classes:
        if not np.array_equal(array.sum(axis=1), np.ones(len(array))) or not np.isin(array, (0, 1)).all():
            raise ValueError(
                f"y has K columns but its rows are not one-hot. Received: y of shape {array.shape}"
            )
        array = array.argmax(axis=1)
    if array.ndim != 1 or len(array) != count:
        raise ValueError(
            f"y must hold a label for each of the {count} images, as ({count},) integers or "
            f"({count}, {num_classes}) one-hot. Received: shape {np.shape(y)}"
        )
    if not np.equal(np.mod(array, 1), 0).all():
        raise ValueError(f"y must hold whole class numbers. Received: dtype {array.dtype} with fractions")
    if count and (array.min() < 0 or array.max() >= num_classes):
        raise ValueError(
            f"y must hold classes 0 to {num_classes - 1}, as the network has {num_classes} outputs. "
            f"Received: labels from {array.min()} to {array.max()}"
        )
    return array.astype("int32")


def attack(attack: Any, shape: tuple[int, ...], classes: int) -> None:
    """Check that an attack can work on images of a shape and a network of so many classes.

    Raises:
        ValueError: it cannot.
    """
    for part in attack.parts(classes) if hasattr(attack, "parts") else [attack]:
        part.numbers(shape)
        if classes < part.needs:
            raise ValueError(f"{part.label} needs at least {part.needs} classes. Received: {classes} logits")


def size(batch_size: int) -> None:
    """Check a batch's size.

    Raises:
        ValueError: it is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size}")


def logits(outputs: Tensor) -> None:
    """Warn when a network's outputs look like probabilities.

    Raises:
        ValueError: the outputs are not (N, K) with K ≥ 2, or not finite.
    """
    array = np.asarray(ops.convert_to_numpy(ops.cast(outputs, "float32")))
    if array.ndim != 2 or array.shape[1] < 2:
        raise ValueError(
            f"The network must return logits of shape (N, K), K ≥ 2. Received: outputs of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("The network returns NaN or infinite logits on clean images.")
    if len(array) and (array >= 0).all() and np.allclose(array.sum(axis=1), 1.0, atol=1e-3):
        warnings.warn(
            "The network's outputs look like probabilities: each row is ≥ 0 and sums to 1. A softmax before the "
            "attack hides gradients and makes the network look robust. Return logits instead.",
            AttackWarning,
            stacklevel=4,
        )
