"""Instance adaptive adversarial training."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from keras import ops
from keras.saving import register_keras_serializable

from kbl import backend
from kbl.losses.labels import to_indices
from kbl.methods.adversarial_training import AdversarialTraining
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class IAAT(AdversarialTraining):
    """Instance adaptive adversarial training: a radius of its own for each image (Balaji et al., arXiv:1910.08051).

    For the first `fixed_steps` steps all images are attacked at the attack's ε. From then on the radius ε_i of image i
    is chosen anew each time that it is trained on (Algorithm 2): ``ε_i + γ`` if the network is still right under an
    attack of that radius, else ε_i if it is right there, else ``ε_i - γ``; what is kept and trained at is
    ``(1 - β) ε_i + β · choice``. A step costs three attacks. No radius grows past the distance from a black image to a
    white one: 1 in L∞, the root of the number of values in L2.

    Differs from the authors' code: step sizes grow and shrink with the radius (theirs have a floor), and images that
    are wrong without an attack are no exception (their choice is 0 there, which the paper does not say).

    `memory` holds "radii", (images,) float32. Images are told apart by their place in the training set, which
    `kbl.RobustModel.fit` and `kbl.training.Batches` hand on; validation attacks all at the attack's ε.

    Args:
        attack: the inner maximisation, at ε > 0.
        images: number of training images.
        gamma: γ > 0 in pixel units.
        beta: β in (0, 1].
        fixed_steps: length of the warm-up at the fixed ε, in training steps.
    """

    images: int
    gamma: float
    beta: float = 0.1
    fixed_steps: int = 0

    follows_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack is None or not self.attack.epsilon > 0:
            raise ValueError(f"IAAT needs an attack of ε > 0. Received: attack={self.attack}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1. Received: {self.images}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be greater than 0. Received: {self.gamma}")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be in (0, 1]. Received: {self.beta}")
        if self.fixed_steps < 0:
            raise ValueError(f"fixed_steps must be at least 0. Received: {self.fixed_steps}")

    def first_memory(self, network: Network) -> dict[str, Any]:
        """Begin with the attack's ε for every image."""
        assert self.attack is not None
        return {"radii": np.full(self.images, self.attack.epsilon, "float32")}

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Tensor:
        """Return adversarial images at each image's own radius, and remember the radii."""
        if step is None:
            return super().craft(network, x, y, index, key, step)
        forward, radii = self.crafting(network), self.memory["radii"]
        kept, largest = ops.take(radii, index), self._largest(x.shape[1:])

        def attacked(radius: Tensor) -> Tensor:
            assert self.attack is not None
            share = ops.reshape(radius / self.attack.epsilon, (-1,) + (1,) * (len(x.shape) - 1))
            return self.attack.craft(forward, x, y, index, key, self.scale(step) * share)

        def withstands(radius: Tensor) -> Tensor:
            return backend.argmax(forward(attacked(radius))) == to_indices(y)

        def chosen() -> Tensor:
            larger = ops.minimum(kept + self.gamma, largest)
            smaller = ops.maximum(kept - self.gamma, 0.0)
            choice = ops.where(withstands(larger), larger, ops.where(withstands(kept), kept, smaller))
            return (1.0 - self.beta) * kept + self.beta * choice

        adapts = ops.cast(step, "int32") >= self.fixed_steps
        radius = ops.cond(adapts, chosen, lambda: kept) if self.fixed_steps else chosen()
        radii.assign(ops.scatter_update(radii, ops.expand_dims(index, 1), radius))
        return attacked(radius)

    def _largest(self, shape: tuple[int, ...]) -> float:
        """Return the distance from a black image to a white one, within which every image lies."""
        assert self.attack is not None
        return math.sqrt(math.prod(shape)) if self.attack.norm == "l2" else 1.0
