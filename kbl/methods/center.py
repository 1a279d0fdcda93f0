"""Center loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras.saving import register_keras_serializable

from kbl.layers.features import features_and_head
from kbl.losses import center_loss, cross_entropy, moved_centres
from kbl.methods.method import Method
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class CenterLoss(Method):
    """Cross-entropy and center loss (Wen et al., ECCV 2016, Eq. 5): the contrast that the ATBLR paper draws in §3.3.

    ``CE(x) + weight · ½‖h(x) - c_y‖²`` on clean images. The centres c are no part of the classifier: they follow the
    features of their class as moving averages, kept in `memory` as "centres", (K, C), zero at first.

    Args:
        weight: λ ≥ 0 of the paper, 0.003 in its experiments.
        centre_rate: α in (0, 1], how fast the centres follow.
    """

    attack: None = None
    weight: float = 0.003
    centre_rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight >= 0:
            raise ValueError(f"weight must be at least 0. Received: {self.weight}")
        if not 0 < self.centre_rate <= 1:
            raise ValueError(f"centre_rate must be in (0, 1]. Received: {self.centre_rate}")

    def first_memory(self, network: Network) -> dict[str, Any]:
        """Begin with centres of zero."""
        features, _ = features_and_head(network)
        return {"centres": np.zeros((network.output_shape[-1], features.output_shape[-1]), "float32")}

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return the logits and the deepest features."""
        body, head = features_and_head(network)
        features = body(x, training=training)
        return head(features), features

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses; what comes second are the features."""
        return cross_entropy(y, clean) + self.weight * center_loss(y, adversarial, self.memory["centres"])

    def learn(self, y: Tensor, *outputs: Tensor) -> None:
        """Move the centres."""
        centres = self.memory["centres"]
        centres.assign(moved_centres(centres, y, outputs[1], self.centre_rate))
