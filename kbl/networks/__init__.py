"""Networks: plain Keras models from images in [0, 1] to logits."""

import difflib

import keras

from kbl.errors import UserError
from kbl.layers.denoise import Denoising
from kbl.networks.digits_convnet import digits_convnet
from kbl.networks.heads import HeadName
from kbl.networks.initialize import initialize
from kbl.networks.mnist_convnet import mnist_convnet
from kbl.networks.mnist_small_convnet import mnist_small_convnet
from kbl.networks.pixelcnn import bits_per_dimension, pixelcnn, to_levels
from kbl.networks.resnet import (
    preactresnet18,
    resnet8,
    resnet18,
    resnet20,
    resnet32,
    wide_resnet8,
    wide_resnet32,
    wide_resnet34_10,
)

__all__ = [
    "bits_per_dimension",
    "build",
    "digits_convnet",
    "initialize",
    "mnist_convnet",
    "mnist_small_convnet",
    "names",
    "pixelcnn",
    "preactresnet18",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet32",
    "to_levels",
    "wide_resnet8",
    "wide_resnet32",
    "wide_resnet34_10",
]

_CONVNETS = {
    "digits_convnet": digits_convnet,
    "mnist_convnet": mnist_convnet,
    "mnist_small_convnet": mnist_small_convnet,
}
_RESIDUAL = {
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet18": resnet18,
    "preactresnet18": preactresnet18,
    "wide_resnet8": wide_resnet8,
    "wide_resnet32": wide_resnet32,
    "wide_resnet34_10": wide_resnet34_10,
}


def names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return (*_CONVNETS, *_RESIDUAL)


def build(
    name: str,
    *,
    head: HeadName,
    num_classes: int,
    image_shape: tuple[int, int, int],
    seed: int,
    batch_normalization: bool = False,
    denoise: Denoising = "none",
) -> keras.Model:
    """Build a network whose weights depend on the seed alone, not on the backend.

    Args:
        name: one of `names()`.
        head: "gmm", "gmm_diagonal" or "dense".
        num_classes: at least 2.
        image_shape: (H, W, C), channels last.
        seed: of the weights, at least 0.
        batch_normalization: normalise before each ReLU; residual networks always do.
        denoise: a denoising block at the end of each stage of a residual network.

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, num_classes).

    Raises:
        UserError: the name is unknown.
        ValueError: another argument is out of its range.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"Unknown network: expected one of {', '.join(map(repr, names()))}. Received: {name!r}.{hint}"
        )
    if name in _RESIDUAL:
        network = _RESIDUAL[name](head, num_classes, image_shape, denoise)
    elif denoise == "none":
        network = _CONVNETS[name](head, num_classes, image_shape, batch_normalization)
    else:
        raise ValueError(
            f"only residual networks have stages to denoise. Received: {name}, denoise={denoise!r}"
        )
    initialize(network, seed)
    return network
