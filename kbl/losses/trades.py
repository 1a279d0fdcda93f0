"""The divergence of two predictions, as TRADES takes it."""

from keras import ops

from kbl.typing import Tensor


def kl_divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``KL(p(x) ‖ p(a)) = Σ_k p_k(x) (log p_k(x) - log p_k(a))`` of softmax predictions.

    Computed from log-softmax, so it stays finite where a probability underflows.

    Args:
        clean: (batch, K) logits of the clean images.
        adversarial: (batch, K) logits of the adversarial ones.

    Returns:
        (batch,) divergence in nats, ≥ 0 up to rounding.

    References:
        H. Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, arXiv:1901.08573, Eq. 5
        with the divergence of the authors' code.
    """
    clean, adversarial = ops.log_softmax(clean, axis=-1), ops.log_softmax(adversarial, axis=-1)
    return ops.sum(ops.exp(clean) * (clean - adversarial), axis=-1)
