"""MART."""

from dataclasses import dataclass

from keras.saving import register_keras_serializable

from kbl.losses import boosted_cross_entropy, misclassification_weighted_kl
from kbl.methods.method import Method
from kbl.methods.trades import near
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class MART(Method):
    """Misclassification-aware adversarial training (Wang et al., ICLR 2020, Eq. 12).

    ``BCE(a) + λ (1 - p_y(x)) KL(p(x) ‖ p(a))``: images that are wrong already are drawn together harder.

    Args:
        attack: the inner maximisation; it starts at x with normal noise of 0.001, as in the authors' code.
        regularization_weight: λ ≥ 0; 5 in the paper.
    """

    regularization_weight: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.regularization_weight >= 0:
            raise ValueError(
                f"regularization_weight must be at least 0. Received: {self.regularization_weight}"
            )
        if self.attack is None:
            raise ValueError("MART needs an attack. Received: attack=None")

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Tensor:
        """Return adversarial images, searched for from close by."""
        assert self.attack is not None
        start = near(x, index, key)
        return self.attack.craft(self.crafting(network), x, y, index, key, self.scale(step), start)

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses."""
        regularization = misclassification_weighted_kl(y, clean, adversarial)
        return boosted_cross_entropy(y, adversarial) + self.regularization_weight * regularization
