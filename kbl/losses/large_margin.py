"""The large-margin Gaussian mixture loss."""

from keras import ops

from kbl.losses.cross_entropy import cross_entropy
from kbl.losses.labels import pick, to_indices
from kbl.typing import Tensor


def large_margin_gaussian(
    y: Tensor, logits: Tensor, distances: Tensor, margin: float, likelihood_weight: float
) -> Tensor:
    """Large-margin Gaussian mixture loss (L-GM): a margin in the likelihood, and the likelihood itself.

    ``-log softmax(z - α d_y e_y)_y + λ (d_y + ½ log|Σ_y|)`` with ``d_k = ½ (h - μ_k)ᵀ Σ_k⁻¹ (h - μ_k)`` and the logits
    ``z_k = -d_k - ½ log|Σ_k|`` of a Gaussian head: the labelled class must win with its distance (1 + α) times as long.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) z of `kbl.layers.GMMHead`.
        distances: (batch, K) d, from ``GMMHead.half_distances``.
        margin: α ≥ 0.
        likelihood_weight: λ ≥ 0.

    Returns:
        (batch,) loss.

    References:
        W. Wan, Y. Zhong, T. Li, J. Chen, Rethinking Feature Distribution for Loss Functions in Image Classification,
        CVPR 2018, arXiv:1803.02988, Eq. 8, 12 and 14.
    """
    logits, indices = ops.convert_to_tensor(logits), to_indices(y)
    own = ops.one_hot(indices, logits.shape[-1], dtype=logits.dtype)
    classification = cross_entropy(indices, logits - margin * own * ops.convert_to_tensor(distances))
    return classification - likelihood_weight * pick(logits, indices)
