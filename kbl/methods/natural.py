"""Natural training."""

from dataclasses import dataclass

from keras.saving import register_keras_serializable

from kbl.losses import cross_entropy
from kbl.methods.method import Method
from kbl.typing import Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class Natural(Method):
    """Cross-entropy on clean images, Eq. 1 of the ATBLR paper: the contrast to every robust method."""

    attack: None = None

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor | None = None) -> Tensor:
        """Return (batch,) losses."""
        return cross_entropy(y, clean)
