"""Certified training."""

from dataclasses import dataclass
from typing import Any

from keras import ops
from keras.saving import register_keras_serializable

from kbl.certification import worst_logits
from kbl.losses import cross_entropy
from kbl.losses.labels import to_indices
from kbl.methods.method import Method
from kbl.typing import Network, Norm, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class CertifiedTraining(Method):
    """Training on a bound of the worst case (Wong & Kolter, arXiv:1711.00851, Theorem 2 and Eq. 14).

    The loss is the cross-entropy of `kbl.certification.worst_logits`: no image within ε has a greater one. It costs a
    pass for each hidden unit, so it is for small networks of convolutions, dense layers and ReLU.

    Args:
        epsilon: radius > 0 that is certified.
        norm: "linf" or "l2".

    Raises:
        ValueError: a field is out of its range. In training: the network has a layer that is not supported.
    """

    attack: None = None
    epsilon: float
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be greater than 0. Received: epsilon={self.epsilon}")
        if self.norm not in ("linf", "l2"):
            raise ValueError(f'norm must be "linf" or "l2". Received: norm={self.norm!r}')

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The clean images' logits, and the bounds."""
        return ("clean", "certified")

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Any:
        """Return the labels and the radius of this step: what the bounds depend on."""
        return to_indices(y), ops.cast(self.epsilon * self.scale(step), "float32")

    def forward(self, network: Network, x: Tensor, crafted: Any, training: bool) -> tuple[Tensor, Tensor]:
        """Return the logits of the clean images and their worst case."""
        labels, epsilon = crafted
        return network(x, training=training), worst_logits(network, x, labels, epsilon, self.norm)

    def loss(self, y: Tensor, clean: Tensor, worst: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return cross_entropy(y, worst)
