"""The threat model: the ε-ball around an image, cut with the cube of valid pixels [0, 1].

ε and step sizes may be Python numbers, scalars, or (batch, 1, 1, 1) tensors of one value an image.
"""

import math
from typing import Any

from keras import ops

from kbl import backend, random
from kbl.typing import Norm, Tensor

# Rounding may carry each pixel of x + δ by half a unit in the last place (2⁻²⁵ below 1), and in L2 the sum of squares
# is itself rounded. The radius is taken smaller by this much, so that what is returned never leaves the ball, in exact
# arithmetic.
_PIXEL_ROUNDING = 2.0**-25
_LENGTH_ROUNDING = 1e-5


def interior(epsilon: float, norm: Norm, size: int) -> float:
    """Return the radius to work with so that float32 images of `size` pixels lie exactly inside the ball of ε."""
    if norm == "linf":
        return max(epsilon - 2 * _PIXEL_ROUNDING, 0.0)
    return max(epsilon * (1.0 - _LENGTH_ROUNDING) - math.sqrt(size) * _PIXEL_ROUNDING, 0.0)


def project(x_adv: Tensor, x: Tensor, epsilon: Any, norm: Norm) -> Tensor:
    """Return the point of the ball around x, and of [0, 1], nearest to x_adv (for L2: first the one, then the other).

    Args:
        x_adv: (batch, ...) float32.
        x: (batch, ...) float32 in [0, 1], the centres.
        epsilon: radius.
        norm: "linf" or "l2".

    Returns:
        (batch, ...) float32.
    """
    return into(x_adv, region(x, epsilon, norm), norm)


def region(x: Tensor, epsilon: Any, norm: Norm) -> tuple[Any, Any]:
    """Return what `into` asks of a ball: for L∞ its least and its greatest image, for L2 centre and radius.

    Steps of one attack share it.
    """
    if norm == "l2":
        return x, epsilon
    return ops.maximum(x - epsilon, 0.0), ops.minimum(x + epsilon, 1.0)


def into(x_adv: Tensor, region: tuple[Any, Any], norm: Norm) -> Tensor:
    """Do what `project` does, with the `region` of x and epsilon."""
    if norm == "l2":
        x, epsilon = region
        offset = x_adv - x
        x_adv = x + offset * ops.minimum(epsilon / _length(offset), 1.0)
        return ops.clip(x_adv, 0.0, 1.0)
    return ops.clip(x_adv, *region)


def ascend(x_adv: Tensor, gradient: Tensor, step_size: Any, norm: Norm) -> Tensor:
    """Return x_adv moved by `step_size` in the steepest direction of the norm: the sign, or the unit gradient.

    A pixel whose gradient is NaN stays. However small the gradient of a saturated loss, its direction counts: it is
    scaled to the order of 1 before it is squared, which below 1e-19 would leave nothing in float32.
    """
    if norm == "linf":
        direction = backend.sign(gradient)
    else:
        # Of 1e±37 the reciprocal is a normal number still. It is multiplied by: of two divisions XLA may make one,
        # g / a / b = g / (a · b), and the product of two tiny numbers is 0.
        gradient = ops.nan_to_num(gradient, posinf=1e37, neginf=-1e37)
        largest = ops.max(ops.abs(gradient), axis=tuple(range(1, len(gradient.shape))), keepdims=True)
        direction = gradient * ops.reciprocal(ops.maximum(largest, 1e-37))
        direction = direction / _length(direction)
    return x_adv + step_size * direction


def random_start(x: Tensor, key: Tensor, index: Tensor, radius: Any, norm: Norm) -> Tensor:
    """Return a point drawn uniformly from the ball of `radius` around each image, clipped to [0, 1].

    Args:
        x: (batch, ...) float32 in [0, 1].
        key: int32 scalar of `kbl.random.key`.
        index: (batch,) int32 identity of each image: its start depends on nothing else.
        radius: radius; 0 returns x.
        norm: "linf" or "l2".

    Returns:
        (batch, ...) float32.
    """
    shape = tuple(x.shape[1:])
    if norm == "linf":
        offset = 2.0 * random.uniform(key, index, shape) - 1.0
    else:
        direction = random.normal(key, index, shape)
        share = random.uniform(random.key(key, 1), index, (1,) * len(shape)) ** (1.0 / math.prod(shape))
        offset = direction / _length(direction) * share
    return project(x + radius * offset, x, radius, norm)


def _length(offset: Tensor) -> Tensor:
    """Euclidean norm of each image, (batch, 1, ...), never zero."""
    axes = tuple(range(1, len(offset.shape)))
    return ops.sqrt(ops.maximum(ops.sum(ops.square(offset), axis=axes, keepdims=True), 1e-24))
