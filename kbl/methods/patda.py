"""Adversarial training with domain adaptation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from keras.saving import register_keras_serializable

from kbl.losses import coral, cross_entropy, mmd, moved_centres, supervised_margin
from kbl.losses.labels import to_indices
from kbl.methods.method import Method
from kbl.typing import Network, Tensor


@register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class PATDA(Method):
    """Adversarial training with domain adaptation (Song, He, Wang & Hopcroft, arXiv:1810.00740), with PGD.

    ``CE(x) + CE(a) + λ (CORAL + MMD + margin)``: the logits of clean and adversarial images are drawn together in their
    covariances and means, without labels, and towards the centre of their class by a margin, with labels. The margin is
    the mean over both images. The centres are moving averages of the logits of both, kept in `memory` as "centres",
    (K, K), zero at first.

    The authors' code leaves the scatter matrices of CORAL undivided; here they are covariances, as in the paper.

    Args:
        attack: the inner maximisation; PGD makes it PATDA.
        adaptation_weight: λ ≥ 0, 1/3 in the paper.
        centre_rate: α in (0, 1], 0.1 in the paper.

    Raises:
        ValueError: a field is out of its range. In `RobustModel.compile`: the network has no `output_shape`.
    """

    adaptation_weight: float = 1 / 3
    centre_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack is None:
            raise ValueError("PATDA needs an attack. Received: attack=None")
        if not self.adaptation_weight >= 0:
            raise ValueError(f"adaptation_weight must be at least 0. Received: {self.adaptation_weight}")
        if not 0 < self.centre_rate <= 1:
            raise ValueError(f"centre_rate must be in (0, 1]. Received: {self.centre_rate}")

    def first_memory(self, network: Network) -> dict[str, Any]:
        """Begin with centres of zero, one for each class."""
        shape = getattr(network, "output_shape", None)
        if shape is None:
            raise ValueError(
                "PATDA keeps a centre for each class: give a Sequential or Functional network, or a subclass with the "
                f"property `output_shape`, (None, K). Received: {network}"
            )
        classes = shape[-1]
        return {"centres": np.zeros((classes, classes), "float32")}

    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return (batch,) losses; what compares the batches is added to each."""
        centres = ops.convert_to_tensor(self.memory["centres"])
        margin = 0.5 * (supervised_margin(y, clean, centres) + supervised_margin(y, adversarial, centres))
        adaptation = coral(clean, adversarial) + mmd(clean, adversarial) + margin
        return cross_entropy(y, clean) + cross_entropy(y, adversarial) + self.adaptation_weight * adaptation

    def learn(self, y: Tensor, *outputs: Tensor) -> None:
        """Move the centres towards the logits of clean and adversarial images."""
        indices, centres = to_indices(y), self.memory["centres"]
        both = ops.concatenate(outputs[:2], axis=0)
        moved = moved_centres(centres, ops.concatenate([indices, indices]), both, self.centre_rate)
        centres.assign(moved)
