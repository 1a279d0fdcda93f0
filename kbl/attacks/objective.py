"""What an attack raises: a loss of the label, or the approach to one other class."""

from collections.abc import Callable

from keras import ops

from kbl import backend
from kbl.losses import (
    cross_entropy,
    distance_margin,
    dlr,
    likelihood_regularization,
    margin,
    nearest_mean,
    targeted_dlr,
)
from kbl.losses.labels import pick
from kbl.typing import LossName, Tensor

LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "likelihood": likelihood_regularization,
    "nearest_mean": nearest_mean,
    "distance_margin": distance_margin,
}

TOWARDS: dict[LossName, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda y, logits, target: -cross_entropy(target, logits),
    "margin": lambda y, logits, target: pick(logits, target) - pick(logits, y),
    "dlr": targeted_dlr,
    "nearest_mean": lambda y, logits, target: pick(logits, target),
}
"""Losses ``(y, logits, target)`` that grow as one other class is approached, for attacks with `targets`."""


def objective(
    loss: LossName,
    y: Tensor,
    logits: Tensor,
    *,
    targeted: bool = False,
    target: Tensor | None = None,
    kappa: Tensor | float = float("inf"),
) -> Tensor:
    """Return what an attack raises, (batch,) float32.

    Args:
        loss: the loss' name.
        y: (batch,) int32 labels; with `targeted` the classes to reach.
        logits: (batch, K).
        targeted: lower the loss of y instead of raising it.
        target: (batch,) int32, another class of each image to approach while y is its label; see `TOWARDS`.
        kappa: confidence from which the margin is raised no further.
    """
    logits = ops.cast(logits, "float32")
    if target is not None:
        value = TOWARDS[loss](y, logits, target)
    else:
        value = LOSSES[loss](y, logits)
        value = -value if targeted else value
    if loss == "margin":
        value = ops.where(value >= kappa, kappa, value)  # NaN, which compares with nothing, stays NaN
    return value


def is_hit(y: Tensor, logits: Tensor, targeted: bool = False) -> Tensor:
    """Tell which images are misclassified, or classified as the target, (batch,) bool.

    Where a logit is NaN there is no class: misclassified. (`argmax` would give the first, or another on TensorFlow.)
    """
    right = ops.equal(backend.argmax(logits), y)
    right = right & ~ops.any(ops.isnan(logits), axis=-1)
    return right if targeted else ~right


def other_class(y: Tensor, logits: Tensor, rank: Tensor) -> Tensor:
    """Return the class that is `rank`-th likeliest (from 0) but for y, (batch,) int32.

    Args:
        y: (batch,) int32.
        logits: (batch, K).
        rank: int32 scalar or (batch,); from K - 1 on it begins anew.
    """
    classes = logits.shape[-1]
    own = ops.equal(ops.expand_dims(y, 1), ops.expand_dims(ops.arange(classes, dtype="int32"), 0))
    order = ops.argsort(ops.where(own, float("inf"), -ops.cast(logits, "float32")), axis=-1)
    rank = ops.mod(rank, classes - 1) + ops.zeros_like(y)
    return ops.squeeze(ops.cast(ops.take_along_axis(order, ops.expand_dims(rank, 1), axis=1), "int32"), 1)
