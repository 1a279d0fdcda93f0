"""What is refused of the images and labels that ``fit`` is given."""

import math
from typing import Any

import numpy as np

from kbl.methods import IAAT, Method
from kbl.training.batches import Batches
from kbl.typing import Network


def check(x: Any, method: Method, validation_split: float) -> None:
    """Refuse arrays and batches that the method cannot be trained on.

    Args:
        x: what ``fit`` is given; of anything but NumPy arrays and `kbl.training.Batches` nothing is known before.
        method: what is trained by.
        validation_split: share of an array's rows, the last, that Keras keeps for validation.

    Raises:
        ValueError: values outside [0, 1], or more images than IAAT has radii for.
    """
    if isinstance(x, np.ndarray):
        if x.size and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"x must hold pixels in [0, 1]. Received: values from {x.min():.6g} to {x.max():.6g}. "
                "Divide 8-bit pixels by 255; the network scales its input itself"
            )
        count = math.floor(len(x) * (1.0 - validation_split)) if x.ndim else 0
    elif isinstance(x, Batches):
        count = x.images
    else:
        return
    if isinstance(method, IAAT) and count > method.images:
        raise ValueError(
            f"images must be the number of training images. Received: IAAT(images={method.images}), and {count} images "
            f"in fit. Compile with IAAT(images={count}, …)"
        )


def check_labels(y: Any, network: Network) -> None:
    """Refuse class numbers that the network has no output for: some losses would take them for others.

    Args:
        y: what ``fit`` is given; of anything but a NumPy array of class numbers nothing is known before.
        network: of a known output shape, else nothing is known either.

    Raises:
        ValueError: a label is no class of the network.
    """
    shape = getattr(network, "output_shape", None)
    if isinstance(y, np.ndarray) and y.size and y.shape[1:] in ((), (1,)) and isinstance(shape, tuple):
        classes = shape[-1]
        if not (y.min() >= 0 and y.max() < classes):
            raise ValueError(
                f"y must hold classes 0 to {classes - 1}, as the network has {classes} outputs. "
                f"Received: labels from {y.min()} to {y.max()}"
            )
