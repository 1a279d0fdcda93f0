"""Labels as integers or one-hot rows, read one way everywhere."""

from keras import ops

from kbl.typing import Tensor


def to_indices(y: Tensor) -> Tensor:
    """Return (batch,) int32 class indices of integer (batch,), (batch, 1) or one-hot (batch, K) labels."""
    y = ops.convert_to_tensor(y)
    if len(y.shape) == 2:
        y = ops.squeeze(y, -1) if y.shape[-1] == 1 else ops.argmax(y, -1)
    return ops.cast(y, "int32")


def pick(logits: Tensor, indices: Tensor) -> Tensor:
    """Return (batch,) the logit of each row at its index."""
    return ops.sum(ops.where(_at(indices, logits), logits, 0.0), axis=-1)


def largest_other(logits: Tensor, indices: Tensor) -> Tensor:
    """Return (batch,) the largest logit of the classes other than the index.

    The labelled class is masked with -inf, never with a product: the logits of a Gaussian head are all negative,
    and a masked zero would be their maximum.
    """
    return ops.max(ops.where(_at(indices, logits), -float("inf"), logits), axis=-1)


def _at(indices: Tensor, logits: Tensor) -> Tensor:
    return ops.expand_dims(indices, 1) == ops.arange(logits.shape[-1], dtype="int32")


def smoothed(y: Tensor, smoothing: float, num_classes: int) -> Tensor:
    """Return (batch, K) float32 labels with the share `smoothing` of each spread evenly over all classes."""
    one_hot = ops.one_hot(to_indices(y), num_classes, dtype="float32")
    return (1.0 - smoothing) * one_hot + smoothing / num_classes
