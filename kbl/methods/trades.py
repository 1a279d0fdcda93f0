"""TRADES."""

from dataclasses import dataclass

from keras import ops
from keras.saving import register_keras_serializable

from kbl import random
from kbl.losses import cross_entropy, kl_divergence
from kbl.methods.method import Method
from kbl.typing import Network, Tensor

# Standard deviation of the normal noise around the image that the authors' code starts from: at the image itself the
# divergence has no gradient.
_START = 0.001


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class TRADES(Method):
    """Trade-off between accuracy and robustness (Zhang et al., arXiv:1901.08573, Eq. 5).

    ``CE(x) + β KL(p(x) ‖ p(a))``, where the adversarial image a raises the same divergence: no label is used.

    Args:
        attack: the inner maximisation; its `loss` must be "cross_entropy", which is taken between the predictions for
            x and a and so is the divergence but for a constant. It starts at x with normal noise of 0.001.
        beta: β ≥ 0, called 1/λ in the paper; 6 in its experiments on CIFAR-10.
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise ValueError(f"beta must be at least 0. Received: {self.beta}")
        if self.attack is None or self.attack.loss != "cross_entropy":
            raise ValueError(
                f'TRADES needs an attack with loss="cross_entropy". Received: attack={self.attack}'
            )

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Tensor:
        """Return images whose predictions lie far from those of the clean ones."""
        assert self.attack is not None
        forward = self.crafting(network)
        predicted = ops.stop_gradient(ops.softmax(ops.cast(forward(x), "float32"), axis=-1))
        start = near(x, index, key)
        return self.attack.craft(forward, x, predicted, index, key, self.scale(step), start)

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses."""
        return cross_entropy(y, clean) + self.beta * kl_divergence(clean, adversarial)


def near(x: Tensor, index: Tensor, key: Tensor) -> Tensor:
    """Return images with normal noise of standard deviation 0.001, where TRADES and MART start."""
    return x + _START * random.normal(key, index, tuple(x.shape[1:]))
