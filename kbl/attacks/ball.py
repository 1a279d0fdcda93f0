"""The threat model: the ε-ball around an image, cut with the cube of valid pixels [0, 1].

ε and step sizes may be Python numbers, scalars, or (batch, 1, 1, 1) tensors of one value an image.
"""

from typing import Any

from keras import ops

from kbl import random
from kbl.typing import Norm, Tensor

# Rounding may carry x + δ past ε by half a unit in the last place of a pixel (2⁻²⁵ below 1), and an L2 norm by more.
# The radius is taken smaller by this much, so that what is returned never leaves the ball, in exact arithmetic.
_LINF_ROUNDING = 2.0**-24
_L2_ROUNDING = 1e-5


def interior(epsilon: float, norm: Norm) -> float:
    """Return the radius to work with so that float32 results lie inside the ball of radius ε exactly."""
    return max(epsilon - _LINF_ROUNDING, 0.0) if norm == "linf" else epsilon * (1.0 - _L2_ROUNDING)


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
    if norm == "l2":
        offset = x_adv - x
        x_adv = x + offset * ops.minimum(epsilon / _length(offset), 1.0)
        return ops.clip(x_adv, 0.0, 1.0)
    return ops.minimum(ops.maximum(x_adv, ops.maximum(x - epsilon, 0.0)), ops.minimum(x + epsilon, 1.0))


def ascend(x_adv: Tensor, gradient: Tensor, step_size: Any, norm: Norm) -> Tensor:
    """Return x_adv moved by `step_size` in the steepest direction of the norm: the sign, or the unit gradient."""
    direction = ops.sign(gradient) if norm == "linf" else gradient / _length(gradient)
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
        size = 1
        for axis in shape:
            size *= axis
        direction = random.normal(key, index, shape)
        share = random.uniform(random.key(key, 1), index, (1,) * len(shape)) ** (1.0 / size)
        offset = direction / _length(direction) * share
    return project(x + radius * offset, x, radius, norm)


def _length(offset: Tensor) -> Tensor:
    """Euclidean norm of each image, (batch, 1, ...), never zero."""
    axes = tuple(range(1, len(offset.shape)))
    return ops.sqrt(ops.maximum(ops.sum(ops.square(offset), axis=axes, keepdims=True), 1e-24))
