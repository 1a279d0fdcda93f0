"""Losses of the gap between the right logit and the best wrong one."""

from typing import Any

from keras import ops
from keras.losses import Loss
from keras.saving import register_keras_serializable

from kbl.losses.labels import largest_other, pick, to_indices
from kbl.typing import Tensor


def margin(y: Tensor, logits: Tensor, kappa: float = float("inf")) -> Tensor:
    """Logit margin ``max(max_{k≠y} z_k - z_y, -κ)`` of Carlini & Wagner (arXiv:1608.04644, f₆; ATBLR paper §2.1).

    Positive exactly where the image is misclassified.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) any reals, all negative ones included; a constant added to a row changes nothing.
        kappa: κ ≥ 0, the confidence past which the loss is flat; infinite by default: never flat.

    Returns:
        (batch,) loss ≥ -κ, in units of the logits.
    """
    logits = ops.convert_to_tensor(logits)
    indices = to_indices(y)
    gap = largest_other(logits, indices) - pick(logits, indices)
    # Not ops.maximum: at gap = -κ its gradient is 1/2 on torch and JAX, and 1 on TensorFlow.
    return gap if kappa == float("inf") else ops.where(gap > -kappa, gap, -kappa)


def dlr(y: Tensor, logits: Tensor) -> Tensor:
    """Difference of logits ratio, ``-(z_y - max_{k≠y} z_k) / (z_(1) - z_(3))`` (Croce & Hein, arXiv:2003.01690, Eq. 6).

    Invariant to a constant added to a row and to its positive scale. z_(1) ≥ z_(2) ≥ … are the sorted logits.

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) any reals, K ≥ 3.

    Returns:
        (batch,) loss: in [-1, 0] where right, positive where wrong, huge where wrong and the three largest tie.

    Raises:
        ValueError: there are fewer than three classes.
    """
    logits = ops.convert_to_tensor(logits)
    if logits.shape[-1] < 3:
        raise ValueError(f"dlr needs at least 3 classes. Received: logits of shape {tuple(logits.shape)}")
    indices = to_indices(y)
    top, _ = ops.top_k(logits, 3)
    spread = top[:, 0] - top[:, 2] + 1e-12
    return (largest_other(logits, indices) - pick(logits, indices)) / spread


def targeted_dlr(y: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR, ``-(z_y - z_t) / (z_(1) - ½ (z_(3) + z_(4)))`` (Croce & Hein, arXiv:2003.01690, Eq. 7).

    Args:
        y: labels, integers or one-hot.
        logits: (batch, K) any reals, K ≥ 4; a constant added to a row, or its positive scale, changes nothing.
        target: the class to approach, integers or one-hot.

    Returns:
        (batch,) loss, positive where the target is likelier than the label.

    Raises:
        ValueError: there are fewer than four classes.
    """
    logits = ops.convert_to_tensor(logits)
    if logits.shape[-1] < 4:
        raise ValueError(
            f"targeted_dlr needs at least 4 classes. Received: logits of shape {tuple(logits.shape)}"
        )
    top, _ = ops.top_k(logits, 4)
    spread = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12
    return (pick(logits, to_indices(target)) - pick(logits, to_indices(y))) / spread


@register_keras_serializable(package="kbl")
class Margin(Loss):
    """`margin` for ``model.compile(loss=…)``."""

    def __init__(self, kappa: float = float("inf"), name: str = "margin", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.kappa = kappa

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return margin(y_true, y_pred, self.kappa)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kappa": self.kappa}


@register_keras_serializable(package="kbl")
class DLR(Loss):
    """`dlr` for ``model.compile(loss=…)``."""

    def __init__(self, name: str = "dlr", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return dlr(y_true, y_pred)
