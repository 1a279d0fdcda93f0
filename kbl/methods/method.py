"""What a training method is."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import keras
from keras import ops

from kbl.attacks import PGD
from kbl.typing import Network, Tensor


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """What is crafted from a batch, and what loss is taken on the result.

    A method of your own gives `loss`, and where needed other fields, `craft` or `forward`.

    Args:
        attack: makes the adversarial images; None trains on clean images alone. One start only.
        batch_norm: BatchNorm in training sees clean and adversarial images in one batch ("joint") or one after the
            other ("separate").
        crafting_mode: the network's mode while crafting, "inference" (moving averages, no dropout) or "training"
            (batch statistics; nothing that the passes update is kept).
        warmup_steps: ε and the step size grow linearly from 0 over this many first steps.

    Raises:
        ValueError: a field is out of its range.
    """

    attack: PGD | None
    batch_norm: Literal["joint", "separate"] = "joint"
    crafting_mode: Literal["inference", "training"] = "inference"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.attack is not None and self.attack.restarts != 1:
            raise ValueError(f"training crafts from one start. Received: restarts={self.attack.restarts}")
        if self.batch_norm not in ("joint", "separate"):
            raise ValueError(f'batch_norm must be "joint" or "separate". Received: {self.batch_norm!r}')
        if self.crafting_mode not in ("inference", "training"):
            raise ValueError(
                f'crafting_mode must be "inference" or "training". Received: {self.crafting_mode!r}'
            )
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0. Received: {self.warmup_steps}")

    @abc.abstractmethod
    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return the loss of each image.

        Args:
            y: labels, (batch,) integers or (batch, K) one-hot.
            clean: (batch, K) logits of the clean images.
            adversarial: (batch, K) logits of the adversarial ones.

        Returns:
            (batch,) loss.
        """

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Tensor:
        """Return adversarial images of a batch.

        Args:
            network: maps images to logits.
            x: (batch, ...) float32 in [0, 1].
            y: labels.
            index: (batch,) int32 identity of each image.
            key: int32 scalar of `kbl.random.key`.
            step: int32 scalar, number of training steps taken; None when validating, at full ε.

        Returns:
            (batch, ...) float32.
        """
        assert self.attack is not None
        scale: Any = 1.0
        if self.warmup_steps and step is not None:
            scale = ops.minimum((ops.cast(step, "float32") + 1.0) / self.warmup_steps, 1.0)
        forward = _in_inference if self.crafting_mode == "inference" else _in_training
        return self.attack.craft(forward(network), x, y, index, key, scale)

    def forward(self, network: Network, x: Tensor, x_adv: Tensor, training: bool) -> tuple[Tensor, ...]:
        """Return the logits of the clean and the adversarial images, (batch, K) each.

        What follows these two in the tuple is handed to `loss` too.
        """
        return self.both(lambda images: network(images, training=training), x, x_adv)

    def both(self, call: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Call on clean and adversarial images as `batch_norm` says."""
        if self.batch_norm == "separate":
            return call(x), call(x_adv)
        outputs = call(ops.concatenate([x, x_adv], axis=0))
        count = ops.shape(x)[0]
        return outputs[:count], outputs[count:]

    def get_config(self) -> dict[str, Any]:
        """Return the fields, the attack serialised."""
        config = {field.name: getattr(self, field.name) for field in fields(self)}
        config["attack"] = keras.saving.serialize_keras_object(self.attack)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Return the method with these fields."""
        return cls(**{**config, "attack": keras.saving.deserialize_keras_object(config["attack"])})


def _in_inference(network: Network) -> Callable[[Tensor], Tensor]:
    return lambda x: network(x, training=False)


def _in_training(network: Network) -> Callable[[Tensor], Tensor]:
    """Batch statistics and dropout, in a scope of its own that forgets every update."""
    trainable = [variable.value for variable in network.trainable_variables]
    non_trainable = [variable.value for variable in network.non_trainable_variables]
    return lambda x: network.stateless_call(trainable, non_trainable, x, training=True)[0]
