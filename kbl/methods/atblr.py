"""Adversarial training with bi-directional likelihood regularization."""

from dataclasses import dataclass
from typing import ClassVar, get_args

from keras.saving import register_keras_serializable

from kbl.layers.features import features_and_head
from kbl.layers.gmm_head import Through
from kbl.losses import atblr_adversarial, atblr_clean
from kbl.methods.method import Method
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class ATBLR(Method):
    """Adversarial training with bi-directional likelihood regularization (Wan, Chen & Yang), Eq. 7 and 8.

    ``½ (CE(x) + λ ‖h(x) - μ_y‖²) + ½ (CE(a) - λ ‖h(a) - μ_y‖²)``: clean and adversarial images in equal parts. The
    network ends with `kbl.layers.GMMHead`.

    The second square has no bound: as it stands it often grows without end (docs/divergence.md). `bound` and
    `gradient_through` are the two remedies; neither is in the paper.

    Args:
        attack: the inner maximisation.
        likelihood_weight: λ ≥ 0.
        bound: B > 0 puts ``min(‖h(a) - μ_y‖², B)`` in place of the adversarial square; None is Eq. 8.
        gradient_through: through what the adversarial square is differentiated: "features and means" is Eq. 8;
            "means" moves the means alone away from adversarial features; "features" the features alone.
    """

    likelihood_weight: float
    bound: float | None = None
    gradient_through: Through = "features and means"

    needs_gmm_head: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.likelihood_weight >= 0:
            raise ValueError(f"likelihood_weight must be at least 0. Received: {self.likelihood_weight}")
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"bound must be greater than 0, or None. Received: {self.bound}")
        if self.gradient_through not in get_args(Through):
            raise ValueError(
                f"gradient_through must be one of {get_args(Through)}. Received: {self.gradient_through!r}"
            )

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return both logits, and the adversarial ones again with the gradient asked for."""
        if x_adv is None or self.gradient_through == "features and means":
            return super().forward(network, x, x_adv, training)
        features, head = features_and_head(network, gaussian=True)
        clean, adversarial = self.both(lambda images: features(images, training=training), x, x_adv)
        return head(clean), head(adversarial), head.log_likelihood(adversarial, self.gradient_through)

    def loss(
        self, y: Tensor, clean: Tensor, adversarial: Tensor, likelihood_logits: Tensor | None = None
    ) -> Tensor:
        """Return (batch,) losses."""
        adversarial_loss = atblr_adversarial(
            y, adversarial, self.likelihood_weight, self.bound, likelihood_logits
        )
        return 0.5 * (atblr_clean(y, clean, self.likelihood_weight) + adversarial_loss)
