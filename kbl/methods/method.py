"""What a training method is."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import keras
from keras import ops

from kbl.attacks import PGD
from kbl.typing import Network, Tensor


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """What is crafted from a batch, and what loss is taken on the result.

    A method of your own gives `loss`, and where needed other fields, `craft` or `forward`. What it remembers from step
    to step beside the network's weights it names in `first_memory`, reads as ``self.memory[name]`` and moves in `craft`
    (by ``assign``) or in `learn`; `kbl.RobustModel` keeps, saves and restores it.

    Args:
        attack: makes the adversarial images; None trains on clean images alone. Untargeted, of one start only.
        batch_norm: BatchNorm in training sees clean and adversarial images in one batch ("joint") or one after the
            other ("separate").
        crafting_mode: the network's mode while crafting, "inference" (moving averages, no dropout) or "training"
            (batch statistics; nothing that the passes update is kept).
        warmup_steps: ε and the step size grow linearly from 0 over this many first steps.
        label_smoothing: s in [0, 1): the loss is taken on labels that give ``1 - s + s/K`` to the true class and
            ``s/K`` to the others. The attack sees the labels themselves.

    Raises:
        ValueError: a field is out of its range.
    """

    attack: PGD | None
    batch_norm: Literal["joint", "separate"] = "joint"
    crafting_mode: Literal["inference", "training"] = "inference"
    warmup_steps: int = 0
    label_smoothing: float = 0.0

    needs_gmm_head: ClassVar[bool] = False
    # Whether `index` must be each image's place in the training set, not in the batch.
    follows_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.attack is not None and not isinstance(self.attack, PGD):
            raise ValueError(
                "attack must be one that crafts inside a training step: PGD, BIM, FGSM or CarliniWagnerLinf. "
                f"Received: {type(self.attack).__name__}"
            )
        if self.attack is not None and self.attack.restarts != 1:
            raise ValueError(f"training crafts from one start. Received: restarts={self.attack.restarts}")
        if self.attack is not None and self.attack.targeted:
            raise ValueError(
                "training crafts untargeted images: a targeted attack lowers the loss of the labels that it is given, "
                "which are the true ones. Received: targeted=True"
            )
        if self.batch_norm not in ("joint", "separate"):
            raise ValueError(f'batch_norm must be "joint" or "separate". Received: {self.batch_norm!r}')
        if self.crafting_mode not in ("inference", "training"):
            raise ValueError(
                f'crafting_mode must be "inference" or "training". Received: {self.crafting_mode!r}'
            )
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0. Received: {self.warmup_steps}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1). Received: {self.label_smoothing}")

    @abc.abstractmethod
    def loss(self, y: Tensor, clean: Tensor, adversarial: Tensor) -> Tensor:
        """Return the loss of each image.

        Args:
            y: labels, (batch,) integers or (batch, K) one-hot.
            clean: (batch, K) logits of the clean images.
            adversarial: (batch, K) logits of the adversarial ones; without an attack it is left out.

        Returns:
            (batch,) loss. What is one number for the whole batch may be added to each.
        """

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Whose logits `forward` returns: names of the metrics. With a second one each batch is crafted from."""
        return ("clean",) if self.attack is None else ("clean", "adversarial")

    def craft(
        self, network: Network, x: Tensor, y: Tensor, index: Tensor, key: Tensor, step: Tensor | None
    ) -> Any:
        """Return adversarial images of a batch, or whatever else `forward` is to have beside the clean ones.

        Args:
            network: maps images to logits.
            x: (batch, ...) float32 in [0, 1].
            y: labels.
            index: (batch,) int32 identity of each image.
            key: int32 scalar of `kbl.random.key`.
            step: int32 scalar, number of training steps taken; None when validating, at full ε.

        Returns:
            (batch, ...) float32; no gradient flows through it.
        """
        assert self.attack is not None
        return self.attack.craft(self.crafting(network), x, y, index, key, self.scale(step))

    def scale(self, step: Tensor | None) -> Any:
        """Return the factor on ε and the step size that the warm-up asks for."""
        if not self.warmup_steps or step is None:
            return 1.0
        return ops.minimum((ops.cast(step, "float32") + 1.0) / self.warmup_steps, 1.0)

    def crafting(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return the network as `crafting_mode` says: a function from images to logits."""
        return Crafting(network, training=self.crafting_mode == "training")

    def forward(
        self, network: Network, x: Tensor, x_adv: Tensor | None, training: bool
    ) -> tuple[Tensor, ...]:
        """Return the logits of the clean and the adversarial images, (batch, K) each.

        What follows the logits in the tuple is handed to `loss` and `learn` too. `x_adv` is None without an attack.
        """
        if x_adv is None:
            return (network(x, training=training),)
        return self.both(lambda images: network(images, training=training), x, x_adv)

    def both(self, call: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Call on clean and adversarial images as `batch_norm` says.

        What layers add to the loss, such as an activity regularizer, is that of the one batch or the sum of both.
        """
        if self.batch_norm == "separate":
            return call(x), call(x_adv)
        outputs = call(ops.concatenate([x, x_adv], axis=0))
        count = ops.shape(x)[0]
        return outputs[:count], outputs[count:]

    def first_memory(self, network: Network) -> dict[str, Any]:
        """Return the arrays that `memory` begins with, by name."""
        return {}

    @property
    def memory(self) -> dict[str, Any]:
        """What is remembered from step to step, as Keras variables; empty before `kbl.RobustModel.compile`."""
        return getattr(self, "_memory", {})

    def remember(self, variables: dict[str, Any]) -> None:
        """Take the variables that `memory` is kept in."""
        object.__setattr__(self, "_memory", variables)

    def learn(self, y: Tensor, *outputs: Tensor) -> None:
        """Move `memory` after the loss of a training step was taken on these outputs of `forward`."""
        return None

    @property
    def companions(self) -> tuple[Network, ...]:
        """Further networks that the method uses and does not train."""
        return ()

    def get_config(self) -> dict[str, Any]:
        """Return the fields, attacks and networks serialised."""
        return {
            field.name: keras.saving.serialize_keras_object(getattr(self, field.name))
            for field in fields(self)
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Return the method with these fields."""
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


@dataclass(frozen=True, eq=False)
class Crafting:
    """A network as adversarial images are crafted on it: a function from images to logits.

    Args:
        network: the network.
        training: take batch statistics and dropout, in a scope of its own that forgets every update.
    """

    network: Network
    training: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits of images."""
        network = self.network
        if not self.training:
            return network(x, training=False)
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return network.stateless_call(trainable, non_trainable, x, training=True)[0]


def watched(network: Network, x: Tensor) -> Tensor:
    """Return the logits of images that are not trained on: nothing of this pass is kept or comes into the loss."""
    mapping = [(variable, ops.stop_gradient(variable.value)) for variable in network.variables]
    with keras.StatelessScope(state_mapping=mapping):
        return ops.stop_gradient(network(x, training=False))
