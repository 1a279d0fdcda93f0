"""The likelihood regularization of ATBLR (Wan, Chen & Yang), Eq. 6 to 8, on the logits of a Gaussian head."""

from typing import Any

from keras import ops
from keras.losses import Loss
from keras.saving import register_keras_serializable

from kbl.losses.cross_entropy import cross_entropy
from kbl.losses.labels import largest_other, pick, to_indices
from kbl.typing import Tensor


def likelihood_regularization(y: Tensor, logits: Tensor) -> Tensor:
    """Squared distance of the feature to its class mean, ``‖h - μ_y‖² = -2 logit_y`` (Eq. 6).

    It is twice the negative log-likelihood of the feature but for a constant: larger means less likely.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) from `kbl.layers.GMMHead`. The absolute value counts: no constant may be added.

    Returns:
        (batch,) squared distance, ≥ 0 up to rounding.
    """
    return -2.0 * pick(ops.convert_to_tensor(logits), to_indices(y))


def nearest_mean(y: Tensor, logits: Tensor) -> Tensor:
    """Log-likelihood of the likeliest other class, ``max_{k≠y} -½‖h - μ_k‖²``: how near the nearest wrong mean is.

    Raised by an attack, it moves the feature to where a wrong class is likely and nothing looks unusual.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) from `kbl.layers.GMMHead`.

    Returns:
        (batch,) log-likelihood but for a constant, ≤ 0.
    """
    return largest_other(ops.convert_to_tensor(logits), to_indices(y))


def distance_margin(y: Tensor, logits: Tensor) -> Tensor:
    """Margin of the distances themselves, ``‖h - μ_y‖ - min_{k≠y} ‖h - μ_k‖``; positive where misclassified.

    `margin` is half the difference of their squares, which grows with the feature's length; this one does not.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) from `kbl.layers.GMMHead`. The absolute value counts.

    Returns:
        (batch,) difference in feature units.
    """
    logits, indices = ops.convert_to_tensor(logits), to_indices(y)
    return _distance(pick(logits, indices)) - _distance(largest_other(logits, indices))


def _distance(logit: Tensor) -> Tensor:
    # Rounding may carry a logit above 0, and at 0 the root has no gradient.
    return ops.sqrt(ops.maximum(-2.0 * logit, 0.0) + 1e-12)


def atblr_clean(y: Tensor, logits: Tensor, likelihood_weight: float) -> Tensor:
    """ATBLR's loss of clean images, ``cross_entropy + λ ‖h(x) - μ_y‖²`` (Eq. 7).

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) from `kbl.layers.GMMHead`.
        likelihood_weight: λ ≥ 0.

    Returns:
        (batch,) loss.
    """
    return cross_entropy(y, logits) + likelihood_weight * likelihood_regularization(y, logits)


def atblr_adversarial(
    y: Tensor,
    logits: Tensor,
    likelihood_weight: float,
    bound: float | None = None,
    likelihood_logits: Tensor | None = None,
) -> Tensor:
    """ATBLR's loss of adversarial images, ``cross_entropy - λ ‖h(a) - μ_y‖²`` (Eq. 8).

    Eq. 8 has no lower bound. With `bound` = B the regularization is ``-λ min(‖h(a) - μ_y‖², B)`` instead: from B on its
    gradient is zero. This form is not in the paper.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) from `kbl.layers.GMMHead`.
        likelihood_weight: λ ≥ 0.
        bound: B > 0, in squared feature units; None is Eq. 8 itself.
        likelihood_logits: (batch, K) the same logits with another gradient, from ``GMMHead.log_likelihood``; the
            regularization reads these. Default: `logits`.

    Returns:
        (batch,) loss.
    """
    distance = likelihood_regularization(y, logits if likelihood_logits is None else likelihood_logits)
    if bound is not None:
        # Not ops.minimum, whose gradient at the bound itself differs between backends.
        distance = ops.where(distance < bound, distance, bound)
    return cross_entropy(y, logits) - likelihood_weight * distance


@register_keras_serializable(package="kbl")
class LikelihoodRegularization(Loss):
    """`likelihood_regularization` (Eq. 6) for ``model.compile(loss=…)``."""

    def __init__(self, name: str = "likelihood_regularization", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return likelihood_regularization(y_true, y_pred)


@register_keras_serializable(package="kbl")
class ATBLRClean(Loss):
    """`atblr_clean` (Eq. 7) for ``model.compile(loss=…)``: the large-margin Gaussian mixture loss without margin."""

    def __init__(self, likelihood_weight: float, name: str = "atblr_clean", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.likelihood_weight = likelihood_weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return atblr_clean(y_true, y_pred, self.likelihood_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "likelihood_weight": self.likelihood_weight}


@register_keras_serializable(package="kbl")
class ATBLRAdversarial(Loss):
    """`atblr_adversarial` (Eq. 8, or its bounded form) for ``model.compile(loss=…)`` on adversarial images."""

    def __init__(
        self,
        likelihood_weight: float,
        bound: float | None = None,
        name: str = "atblr_adversarial",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.likelihood_weight = likelihood_weight
        self.bound = bound

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return atblr_adversarial(y_true, y_pred, self.likelihood_weight, self.bound)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {"likelihood_weight": self.likelihood_weight, "bound": self.bound}
        return {**super().get_config(), **config}
