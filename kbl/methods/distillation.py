"""Defensive distillation."""

from dataclasses import dataclass
from typing import Any

from keras import ops
from keras.saving import register_keras_serializable

from kbl.losses import cross_entropy
from kbl.methods.method import Method, watched
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class DefensiveDistillation(Method):
    """Defensive distillation (Papernot et al., arXiv:1511.04508): a defence that masks gradients and does not hold.

    ``CE(softmax(teacher(x) / T), network(x) / T)``. The teacher is a network of the same kind trained by the same loss
    on the labels (``teacher=None``). At test time the temperature is 1 again, so the logits are T times those of a
    plain network: the softmax saturates and gradients of the cross-entropy vanish, while attacks on the logits find
    what they find elsewhere (Carlini & Wagner, arXiv:1608.04644). Evaluate it by the margin and DLR losses.

    Args:
        temperature: T > 0; 20 in the paper's choice for MNIST and CIFAR-10.
        teacher: a built network that returns logits; None trains on the labels, as the teacher itself is.
    """

    attack: None = None
    temperature: float = 20.0
    teacher: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0. Received: {self.temperature}")

    @property
    def companions(self) -> tuple[Network, ...]:
        """The teacher."""
        return () if self.teacher is None else (self.teacher,)

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return the network's logits, and the teacher's."""
        own = super().forward(network, x, None, training)
        return own if self.teacher is None else (*own, watched(self.teacher, x))

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor | None = None) -> Tensor:
        """Return (batch,) losses; what comes second are the teacher's logits."""
        target = y if adversarial is None else ops.softmax(adversarial / self.temperature, axis=-1)
        return cross_entropy(target, clean / self.temperature)
