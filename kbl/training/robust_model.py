"""A network and the method that trains it, as a Keras model."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend, random
from kbl.layers.gmm_head import has_gmm_head
from kbl.losses.labels import smoothed
from kbl.methods import AWP, Method, Natural
from kbl.training import monitors
from kbl.training.batches import Batches
from kbl.training.divergence import StopOnDivergence
from kbl.training.forward import Forward
from kbl.training.given import check, check_labels
from kbl.training.interruptible import interruptible
from kbl.training.memory import Memory
from kbl.typing import Network, Tensor

_VALIDATION = -1


class _WeightedMean(keras.losses.Loss):
    """Keras' own mean over the batch: weighted, and shared among the replicas of `tf.distribute`."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred


def _images(x: Any) -> tuple[Tensor, Tensor | None]:
    """Return images and, where they come with it, their index in the training set."""
    return (x["images"], x["index"]) if isinstance(x, dict) else (x, None)


def _outputs(y_pred: Any) -> tuple[Tensor, ...]:
    """Return what a method's forward gave, in float32; Keras builds metrics from the network's logits alone."""
    outputs = y_pred if isinstance(y_pred, (tuple, list)) else (y_pred,)
    return tuple(ops.cast(output, "float32") for output in outputs)


@keras.saving.register_keras_serializable(package="kbl")
class RobustModel(keras.Model):
    """Trains a network by a `kbl.methods.Method` in Keras' own ``fit``, on every backend.

    Called on images it is the network. In ``fit`` and ``evaluate`` each batch is augmented (training only), attacked
    inside the compiled step, and the method's loss is taken; the logs hold ``loss``, ``clean_accuracy``, and with an
    attack ``adversarial_accuracy`` (in certified training ``certified_accuracy``), and with a Gaussian head
    ``clean_lkd`` and ``adversarial_lkd``, the mean of ``‖h - μ_y‖²`` (Eq. 6 of the ATBLR paper; the two curves of its
    Fig. 3).

    Args:
        network: a built Keras model that maps images in [0, 1] to logits. It may be used and saved on its own.
        augmentation: a layer applied to training images before the attack, for example
            `kbl.layers.RandomFlipCrop`.
        seed: seed of the attack's random starts; the same on every backend.

    Raises:
        ValueError: the network is not built.
    """

    def __init__(self, network: Network, augmentation: Any = None, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not network.built:
            raise ValueError("network must be built: give it an Input, or call it on a batch of images first")
        self.network = network
        self.augmentation = augmentation
        self.seed = seed
        self.steps_taken = self.add_weight(
            name="steps_taken",
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.method: Method = Natural()
        self.memory = Memory(name="memory")
        self.weight_perturbation: AWP | None = None
        self._monitors = monitors.monitors()
        # As a function: a layer would be one of this model's, with all its variables once more.
        self._forward: Any = Forward(self).__call__
        self.built = True
        backend.prepare(network)

    def compile(
        self,
        optimizer: Any = "adam",
        method: Method | None = None,
        weight_perturbation: AWP | None = None,
        **kwargs: Any,
    ) -> None:
        """Configure training; it begins anew: steps (of warm-ups, too), what a method remembers, the optimizer.

        Args:
            optimizer: as in ``keras.Model.compile``.
            method: what is crafted and what loss is taken; default `kbl.methods.Natural`.
            weight_perturbation: take each step's gradient at adversarially perturbed weights.
            **kwargs: further arguments of ``keras.Model.compile``; metrics see the clean images' logits. `loss` is
                the method's.

        Raises:
            ValueError: a `loss` was given, or the method needs a Gaussian head that the network lacks.
        """
        if kwargs.get("loss") is not None:
            raise ValueError(
                f"the loss is the method's: give `method` alone. Received: loss={kwargs['loss']!r}"
            )
        method = Natural() if method is None else method
        if method.needs_gmm_head and not has_gmm_head(self.network):
            raise ValueError(
                f"{type(method).__name__} reads likelihoods: the network's last layer must be kbl.layers.GMMHead"
            )
        self.method = copy.copy(method)  # what it remembers belongs to this model
        self.memory.begin(method.first_memory(self.network))
        self.method.remember(self.memory.values)
        self.steps_taken.assign(0)
        for companion in self.companions:
            backend.prepare(companion)
        self.weight_perturbation = weight_perturbation
        super().compile(optimizer=optimizer, **kwargs)

    @property
    def companions(self) -> list[Network]:
        """The method's further networks: saved with this model, not trained by it, their owner's otherwise."""
        return list(self.method.companions)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """Keras' own, and the companions': a step on JAX knows no others."""
        own = {id(variable) for variable in self.variables}
        others = [variable for companion in self.companions for variable in companion.variables]
        return [*super().non_trainable_variables, *(each for each in others if id(each) not in own)]

    @property
    def metrics(self) -> list[Any]:
        """Keras' metrics, and of this model's own those that the method and the head give a meaning."""
        shown = monitors.shown(self.method.outcomes, has_gmm_head(self.network))
        hidden = [monitor for name, monitor in self._monitors.items() if name not in shown]
        return [metric for metric in super().metrics if not any(metric is other for other in hidden)]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return logits (batch, K) of images; of a tuple (clean, adversarial), what the method's forward returns."""
        if isinstance(inputs, tuple):
            return self._forward(inputs, training=training)
        return self.network(_images(inputs)[0], training=training)

    def train_step(self, *arguments: Any) -> Any:
        """Augment and attack the batch, then Keras' own step."""
        return backend.with_adversaries(self, super().train_step, True, *arguments)

    def test_step(self, *arguments: Any) -> Any:
        """Attack the batch at full ε, from the same random starts every time, then Keras' own step."""
        return backend.with_adversaries(self, super().test_step, False, *arguments)

    def attacked(self, data: Any, training: bool) -> Any:
        """Return the batch with images replaced by the tuple (clean, adversarial), or (clean,) without an attack."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, index = _images(x)
        x = ops.cast(x, "float32")
        step = ops.convert_to_tensor(self.steps_taken) if training else None
        if training and self.augmentation is not None:
            x = self.augmentation(x, training=True)
        images: tuple[Tensor, ...] = (x,)
        if len(self.method.outcomes) > 1:
            if index is None and training and self.method.follows_images:
                raise ValueError(
                    f"{type(self.method).__name__} tells images apart by their place in the training set: give fit "
                    'NumPy arrays, kbl.training.Batches, or batches of ({"images": x, "index": place}, y). '
                    "Received: batches of images alone"
                )
            index = ops.arange(ops.shape(x)[0], dtype="int32") if index is None else index
            key = random.key(self.seed, _VALIDATION if step is None else step)
            crafted = self.method.craft(self.network, x, y, index, key, step)
            images += (keras.tree.map_structure(ops.stop_gradient, crafted),)
        if training:
            self.steps_taken.assign_add(1)  # last: on torch and TensorFlow `step` is the variable itself
        return images, y, sample_weight

    def perturbation(self, data: Any) -> list[Tensor] | None:
        """Return what to add to each trainable weight for the step's forward pass, if anything."""
        if self.weight_perturbation is None:
            return None
        images, y, sample_weight = data
        weights = [variable.value for variable in self.trainable_variables]

        def loss(candidates: list[Tensor]) -> tuple[Tensor, Any]:
            others = self.non_trainable_variables
            mapping = [
                *zip(self.trainable_variables, candidates, strict=True),
                *((v, v.value) for v in others),
            ]
            with keras.StatelessScope(state_mapping=mapping):
                return self._loss(y, _outputs(self(images, training=True)), sample_weight), ()

        _, gradients = backend.value_and_grad(loss, weights)
        return self.weight_perturbation(weights, gradients, ops.convert_to_tensor(self.steps_taken))

    @contextmanager
    def moved(self, shift: list[Tensor] | None) -> Iterator[None]:
        """Take forward passes at weights that are moved by what `perturbation` returned."""
        forward = self._forward
        self._forward = partial(forward, shift=shift)
        try:
            yield
        finally:
            self._forward = forward

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the mean of the method's loss over the batch, weighted, plus the network's own losses."""
        outputs = _outputs(y_pred)
        gaussian = has_gmm_head(self.network)
        monitors.update(self._monitors, self.method.outcomes, y, outputs, gaussian)
        loss = self._loss(y, outputs, sample_weight)
        if training:
            self.method.learn(y, *map(ops.stop_gradient, outputs))
        return loss + super().compute_loss(training=training) if self.losses else loss

    def _loss(self, y: Tensor, outputs: Any, sample_weight: Any) -> Tensor:
        if self.method.label_smoothing:
            y = smoothed(y, self.method.label_smoothing, outputs[0].shape[-1])
        return _WeightedMean(name="mean")(y, self.method.loss(y, *outputs), sample_weight)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Give the metrics of ``compile`` the clean images' logits."""
        return super().compute_metrics(x, y, _outputs(y_pred)[0], sample_weight)

    @interruptible
    def fit(self, x: Any = None, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Train as ``keras.Model.fit``; training that runs away raises `kbl.DivergenceError`.

        Raises:
            ValueError: `x` is an array with values outside [0, 1] or `y` one of other classes, or the method follows
                images (IAAT) and these are more than it was told, or batches do not come with the place of each.
            DivergenceError: the loss is not finite, or the likelihood term grows without end.
        """
        check(x, self.method, kwargs.get("validation_split") or 0.0)
        check_labels(args[0] if args else kwargs.get("y"), self.network)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            # First of all, so that no other callback saves what has run away.
            callbacks = [StopOnDivergence(), *keras.tree.flatten(callbacks or [])]
            if isinstance(x, Batches):
                kwargs["shuffle"] = False
                batches: Batches = x
                batches.with_index = self.method.follows_images
                callbacks.append(
                    keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.start(epoch))
                )
                x = backend.fed(batches)
            if isinstance(kwargs.get("validation_data"), Batches):
                kwargs["validation_data"] = backend.fed(kwargs["validation_data"])
        if self.method.follows_images and isinstance(x, np.ndarray):
            x = {"images": x, "index": np.arange(len(x), dtype="int32")}
        given = inspect.signature(super().fit).bind(x, *args, callbacks=callbacks, **kwargs).arguments
        return super().fit(**backend.fit_arguments(given))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {
            "network": keras.saving.serialize_keras_object(self.network),
            "augmentation": keras.saving.serialize_keras_object(self.augmentation),
            "seed": self.seed,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RobustModel":
        """Return the model with these arguments."""
        config = dict(config)
        for name in ("network", "augmentation"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        """Return Keras' compile configuration, with the method."""
        own = {"method": self.method, "weight_perturbation": self.weight_perturbation}
        return {
            **super().get_compile_config(),
            **{name: keras.saving.serialize_keras_object(value) for name, value in own.items()},
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        config = keras.saving.deserialize_keras_object(config)
        for name in ("loss", "loss_weights"):
            config.pop(name, None)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)
