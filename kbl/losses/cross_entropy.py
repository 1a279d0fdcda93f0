"""Cross-entropy on logits."""

from keras import ops
from keras.losses import Loss
from keras.saving import register_keras_serializable

from kbl.losses.labels import pick, to_indices
from kbl.typing import Tensor


def cross_entropy(y: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy ``-log softmax(logits)_y``, Eq. 1 of the ATBLR paper.

    Args:
        y: labels, (batch,) or (batch, 1) integers, or (batch, K) one-hot or soft.
        logits: (batch, K) any reals; adding a constant to a row changes nothing.

    Returns:
        (batch,) loss in nats.
    """
    y = ops.convert_to_tensor(y)
    logits = ops.convert_to_tensor(logits)
    log_probabilities = ops.log_softmax(logits, axis=-1)
    if len(y.shape) == 2 and y.shape[-1] > 1:
        return -ops.sum(ops.cast(y, logits.dtype) * log_probabilities, axis=-1)
    return -pick(log_probabilities, to_indices(y))


@register_keras_serializable(package="kbl")
class CrossEntropy(Loss):
    """`cross_entropy` for ``model.compile(loss=…)``."""

    def __init__(self, name: str = "cross_entropy", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return cross_entropy(y_true, y_pred)
