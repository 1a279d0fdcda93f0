"""Adversarial training."""

from dataclasses import dataclass
from typing import Literal

from keras.saving import register_keras_serializable

from kbl.losses import cross_entropy
from kbl.methods.method import Method, watched
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Method):
    """Cross-entropy on adversarial images (Madry et al., arXiv:1706.06083; Eq. 2 of the ATBLR paper).

    Args:
        attack: the inner maximisation.
        examples: "adversarial" trains on the adversarial images alone, as Madry et al.; "clean and adversarial" takes
            the mean of both losses, as the paper's §4.2 describes its baseline.
    """

    examples: Literal["adversarial", "clean and adversarial"] = "adversarial"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples not in ("adversarial", "clean and adversarial"):
            raise ValueError(
                f'examples must be "adversarial" or "clean and adversarial". Received: {self.examples!r}'
            )

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return both logits; those of clean images are only watched when they are not trained on."""
        if x_adv is None or self.examples == "clean and adversarial":
            return super().forward(network, x, x_adv, training)
        return watched(network, x), network(x_adv, training=training)

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses."""
        if self.examples == "adversarial":
            return cross_entropy(y, adversarial)
        return 0.5 * (cross_entropy(y, clean) + cross_entropy(y, adversarial))
