"""Which images are certified."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend
from kbl.attacks import checks
from kbl.certification.bounds import worst_logits
from kbl.certification.chain import Affine, chain
from kbl.losses.labels import largest_other
from kbl.typing import Network, Norm, Tensor

_FLOATS = 2**26  # of the largest array of a batch


def certify(
    network: Network,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    *,
    norm: Norm = "linf",
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray[Any, Any]:
    """Tell which images are classified right and provably so anywhere within ε; see `worst_logits`.

    What it says of an image is a proof up to rounding, what it does not say is nothing: accuracy under the strongest
    attack lies between the certified accuracy and the one that an attack leaves.

    Args:
        network: see `chain` for what it may consist of.
        x: (N, ...) images in [0, 1].
        y: (N,) labels, or (N, K) one-hot.
        epsilon: radius.
        norm: "linf" or "l2".
        batch_size: images at a time; by default as many as 256 MiB for the largest array allow.
        progress: called with the number of images done and N after each batch.

    Returns:
        (N,) bool.

    Raises:
        ValueError: an argument is out of its range, or the network has a layer that is not supported.
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0. Received: epsilon={epsilon}")
    images = checks.images(x)
    sizes = [math.prod(part.shape) for part in chain(network) if isinstance(part, Affine)]
    labels = checks.labels(y, len(images), sizes[-1])
    largest = max(a * b for a, b in zip([images[0].size, *sizes[:-1]], sizes, strict=True))
    size = min(batch_size or max(_FLOATS // largest, 1), len(images))

    def kernel(forward: Any, weights: list[Tensor], x: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(network.variables, weights, strict=True))):
            return largest_other(worst_logits(network, x, y, epsilon, norm), y) < 0

    run = backend.compiled(network, kernel)
    weights = [variable.value for variable in network.variables]
    certified = []
    for start in range(0, len(images), size):
        rows = np.arange(start, start + size) % len(
            images
        )  # a last short batch is filled up: one shape, one compilation
        found = run(weights, images[rows], labels[rows], float(epsilon))
        certified.append(ops.convert_to_numpy(found))
        if progress is not None:
            progress(min(start + size, len(images)), len(images))
    return np.concatenate(certified)[: len(images)]
