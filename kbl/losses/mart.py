"""The two parts of MART's loss."""

from keras import ops

from kbl.losses.cross_entropy import cross_entropy
from kbl.losses.labels import pick, to_indices
from kbl.losses.trades import kl_divergence
from kbl.typing import Tensor


def boosted_cross_entropy(y: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy and a margin, ``-log p_y - log(1 - max_{k≠y} p_k)``.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K), K ≥ 2.

    Returns:
        (batch,) loss in nats.

    References:
        Y. Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples, ICLR 2020, Eq. 6.
        The authors' code guards the second logarithm by adding 0.0001 to its argument; here it is computed as the
        log-sum-exp of all classes but the greatest wrong one, which needs no guard.
    """
    logits, indices = ops.convert_to_tensor(logits), to_indices(y)
    log_probabilities = ops.log_softmax(logits, axis=-1)
    # The first of the greatest wrong classes, if several are equal.
    wrong = ops.one_hot(indices, logits.shape[-1], dtype=bool)
    greatest = ops.argmax(ops.where(wrong, -float("inf"), logits), axis=-1)
    is_greatest = ops.one_hot(greatest, logits.shape[-1], dtype=bool)
    others = ops.where(is_greatest, -float("inf"), log_probabilities)
    return cross_entropy(y, logits) - ops.logsumexp(others, axis=-1)


def misclassification_weighted_kl(y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
    """``(1 - p_y(x)) KL(p(x) ‖ p(a))``: the divergence, weighted by how wrong the clean image is (MART, Eq. 8).

    Args:
        y: labels, integers or one-hot.
        clean: (batch, K) logits of the clean images.
        adversarial: (batch, K) logits of the adversarial ones.

    Returns:
        (batch,) loss in nats.
    """
    right = pick(ops.softmax(clean, axis=-1), to_indices(y))
    return (1.0 - right) * kl_divergence(clean, adversarial)
