"""Adversarial weight perturbation."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kbl.typing import Tensor


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True, kw_only=True)
class AWP:
    """Adversarial weight perturbation (Wu, Xia & Wang, arXiv:2004.05884), for any method.

    The gradient of a training step is taken not at the weights w but at ``w + v``, where the loss is worse: one step of
    gradient ascent, ``v = γ ‖w‖ ∇loss / ‖∇loss‖`` for each kernel (Eq. 8 to 10, as in the authors' code with their one
    inner step). Biases and what normalisation learns stay. The optimizer takes the gradient from w: weight decay,
    constraints and averages see no v, and penalties on the weights themselves are those of w. (The authors' code takes
    v away after the optimizer's step, so that weight decay is that of w + v.)

    It costs one more forward and backward pass a step. Under `tf.distribute` each replica perturbs on its own images.

    Args:
        gamma: γ > 0, length of the perturbation as a share of the kernel's; 0.005 in the paper.
        warmup_steps: first steps taken without it.

    Raises:
        ValueError: a field is out of its range.
    """

    gamma: float = 0.005
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be greater than 0. Received: {self.gamma}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0. Received: {self.warmup_steps}")

    def __call__(self, weights: list[Tensor], gradients: list[Tensor], step: Tensor) -> list[Tensor]:
        """Return what to add to each weight.

        Args:
            weights: the trainable weights; those of rank 2 and more are perturbed.
            gradients: of the loss, one each.
            step: int32 scalar, the number of training steps taken, this one included.
        """
        share = self.gamma * ops.cast(step > self.warmup_steps, "float32")
        return [
            share * _length(weight) * gradient / ops.maximum(_length(gradient), 1e-20)
            if len(weight.shape) > 1
            else ops.zeros_like(weight)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the fields."""
        return {"gamma": self.gamma, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AWP":
        """Return the perturbation with these fields."""
        return cls(**config)


def _length(tensor: Tensor) -> Tensor:
    """Euclidean length, of a tiny gradient too."""
    largest = ops.maximum(ops.max(ops.abs(tensor)), 1e-30)
    return largest * ops.sqrt(ops.sum(ops.square(tensor / largest)))
