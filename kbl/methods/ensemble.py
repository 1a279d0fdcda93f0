"""Ensemble adversarial training."""

from dataclasses import dataclass
from typing import Any

from keras import ops
from keras.saving import register_keras_serializable

from kbl.losses import cross_entropy
from kbl.methods.method import Method
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class EnsembleAdversarialTraining(Method):
    """Adversarial images from other, fixed networks too (Tramèr et al., arXiv:1705.07204).

    ``½ CE(x) + ½ CE(a)``, where a is crafted on the network itself or on one of the `sources`, which take turns
    batch by batch. It is made against transferred one-step attacks; against iterated white-box attacks it gives little.

    Args:
        attack: one step, FGSM, in the paper.
        sources: networks trained beforehand, at least one; they stay as they are.
    """

    sources: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sources", tuple(self.sources))
        if not self.sources:
            raise ValueError("sources must hold at least one network. Received: none")
        if self.attack is None:
            raise ValueError("EnsembleAdversarialTraining needs an attack. Received: attack=None")

    @property
    def companions(self) -> tuple[Network, ...]:
        """The fixed networks."""
        return self.sources

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Tensor:
        """Return images crafted on the network whose turn it is; on the network itself when validating."""
        if step is None:
            return super().craft(network, x, y, index, key, None)

        def on(source: Network) -> Any:
            return lambda: super(EnsembleAdversarialTraining, self).craft(source, x, y, index, key, step)

        branches = [on(source) for source in (network, *self.sources)]
        return ops.switch(ops.mod(ops.cast(step, "int32"), len(branches)), branches)

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return 0.5 * (cross_entropy(y, clean) + cross_entropy(y, adversarial))
