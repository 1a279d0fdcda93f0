"""Networks: plain Keras models from images in [0, 1] to logits."""

import difflib

import keras

from kbl.errors import UserError
from kbl.networks.digits_convnet import digits_convnet
from kbl.networks.heads import HeadName
from kbl.networks.initialize import initialize
from kbl.networks.mnist_convnet import mnist_convnet
from kbl.networks.mnist_small_convnet import mnist_small_convnet

__all__ = [
    "build",
    "digits_convnet",
    "initialize",
    "mnist_convnet",
    "mnist_small_convnet",
    "names",
]

_NETWORKS = {
    "digits_convnet": digits_convnet,
    "mnist_convnet": mnist_convnet,
    "mnist_small_convnet": mnist_small_convnet,
}


def names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_NETWORKS)


def build(
    name: str,
    *,
    head: HeadName,
    num_classes: int,
    image_shape: tuple[int, int, int],
    batch_normalization: bool,
    seed: int,
) -> keras.Model:
    """Build a network whose weights depend on the seed alone, not on the backend.

    Args:
        name: one of `names()`.
        head: "gmm" or "dense".
        num_classes: at least 2.
        image_shape: (H, W, C), channels last.
        batch_normalization: normalise before each ReLU.
        seed: of the weights, at least 0.

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, num_classes).

    Raises:
        UserError: the name is unknown.
        ValueError: another argument is out of its range.
    """
    if name not in _NETWORKS:
        near = difflib.get_close_matches(name, _NETWORKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"Unknown network: expected one of {', '.join(map(repr, _NETWORKS))}. Received: {name!r}.{hint}"
        )
    network = _NETWORKS[name](head, num_classes, image_shape, batch_normalization)
    initialize(network, seed)
    return network
