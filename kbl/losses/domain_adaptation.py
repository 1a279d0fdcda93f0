"""The terms by which adversarial training with domain adaptation draws clean and adversarial logits together."""

from keras import ops

from kbl.losses.labels import to_indices
from kbl.typing import Tensor


def coral(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Correlation alignment ``‖cov(clean) - cov(adversarial)‖₁ / K²``, one number (ATDA, Eq. 4).

    Covariances are over the batch and divided by ``batch - 1``. One image has none: the loss is 0.

    Args:
        clean: (batch, K) logits.
        adversarial: (batch, K) logits.

    References:
        C. Song, K. He, L. Wang, J. E. Hopcroft, Improving the Generalization of Adversarial Training with Domain
        Adaptation, arXiv:1810.00740.
    """
    return ops.mean(ops.abs(_covariance(clean) - _covariance(adversarial)))


def mmd(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Maximum mean discrepancy ``‖mean(clean) - mean(adversarial)‖₁ / K``, one number (ATDA, Eq. 5).

    Args:
        clean: (batch, K) logits.
        adversarial: (batch, K) logits.
    """
    return ops.mean(ops.abs(ops.mean(clean, axis=0) - ops.mean(adversarial, axis=0)))


def supervised_margin(y: Tensor, logits: Tensor, centres: Tensor) -> Tensor:
    """Mean over the other classes k of ``softplus(‖z - c_y‖₁ - ‖z - c_k‖₁)`` (ATDA, Eq. 6).

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) logits z.
        centres: (K, K) centre of each class in the space of logits.

    Returns:
        (batch,) loss: near 0 where the logits lie nearer to their own centre than to any other.
    """
    classes = logits.shape[-1]
    logits, centres = ops.convert_to_tensor(logits), ops.convert_to_tensor(centres)
    distances = ops.sum(ops.abs(ops.expand_dims(logits, 1) - ops.expand_dims(centres, 0)), axis=-1)
    own = ops.one_hot(to_indices(y), classes, dtype=distances.dtype)
    margins = ops.softplus(ops.sum(own * distances, axis=-1, keepdims=True) - distances)
    return ops.sum((1.0 - own) * margins, axis=-1) / (classes - 1)


def moved_centres(centres: Tensor, y: Tensor, values: Tensor, rate: float) -> Tensor:
    """Return centres moved towards the values of their class: ``c_k - α Σ_{y=k} (c_k - v) / (1 + count_k)``.

    This is the update of the center loss (Wen et al., ECCV 2016, Eq. 4), which ATDA takes over.

    Args:
        centres: (K, C).
        y: labels, integers or one-hot, (batch,).
        values: (batch, C) logits or features.
        rate: α in (0, 1].

    Returns:
        (K, C); the centre of a class that is not in the batch stays.
    """
    centres, values = ops.convert_to_tensor(centres), ops.convert_to_tensor(values)
    member = ops.one_hot(to_indices(y), centres.shape[0], dtype=values.dtype)
    count = ops.expand_dims(ops.sum(member, axis=0), 1)
    total = ops.matmul(ops.transpose(member), values)
    return centres - rate * (count * centres - total) / (1.0 + count)


def _covariance(values: Tensor) -> Tensor:
    """Covariance over the batch, (K, K); zero of one image."""
    values = ops.convert_to_tensor(values)
    centred = values - ops.mean(values, axis=0, keepdims=True)
    freedom = ops.maximum(ops.cast(ops.shape(values)[0], "float32") - 1.0, 1.0)
    return ops.matmul(ops.transpose(centred), centred) / freedom
