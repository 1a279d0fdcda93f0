"""Training by the large-margin Gaussian mixture loss."""

from dataclasses import dataclass
from typing import ClassVar

from keras.saving import register_keras_serializable

from kbl.layers.features import features_and_head
from kbl.losses import large_margin_gaussian
from kbl.methods.method import Method
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class LGM(Method):
    """The large-margin Gaussian mixture loss (Wan et al., arXiv:1803.02988) on clean images.

    The likelihood regularization of the ATBLR paper comes from here (its [21]). The network ends with
    `kbl.layers.GMMHead`, of identity or learned diagonal covariance.

    Args:
        margin: α ≥ 0: the distance to the own mean counts (1 + α) times.
        likelihood_weight: λ ≥ 0.
    """

    attack: None = None
    margin: float = 0.3
    likelihood_weight: float = 0.1

    needs_gmm_head: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0. Received: {self.margin}")
        if not self.likelihood_weight >= 0:
            raise ValueError(f"likelihood_weight must be at least 0. Received: {self.likelihood_weight}")

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return the logits, and half the squared distances to all means."""
        body, head = features_and_head(network, gaussian=True)
        features = body(x, training=training)
        return head(features), head.half_distances(features)

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses; what comes second are the distances."""
        return large_margin_gaussian(y, clean, adversarial, self.margin, self.likelihood_weight)
