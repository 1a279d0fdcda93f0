"""A network and the method that trains it, as a Keras model."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kbl import backend, random
from kbl.layers.gmm_head import has_gmm_head
from kbl.losses import likelihood_regularization
from kbl.losses.labels import to_indices
from kbl.methods import ATBLR, Method, Natural
from kbl.training.batches import Batches
from kbl.training.divergence import StopOnDivergence
from kbl.typing import Network, Tensor

_VALIDATION = -1


class _WeightedMean(keras.losses.Loss):
    """Keras' own mean over the batch: weighted, and shared among the replicas of `tf.distribute`."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred


@keras.saving.register_keras_serializable(package="kbl")
class RobustModel(keras.Model):
    """Trains a network by a `kbl.methods.Method` in Keras' own ``fit``, on every backend.

    Called on images it is the network. In ``fit`` and ``evaluate`` each batch is augmented (training only), attacked
    inside the compiled step, and the method's loss is taken; the logs hold ``loss``, ``clean_accuracy``, and with an
    attack ``adversarial_accuracy``, and with a Gaussian head ``clean_lkd`` and ``adversarial_lkd``, the mean of
    ``‖h - μ_y‖²`` (Eq. 6 of the ATBLR paper; the two curves of its Fig. 3).

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
        names = ("clean_accuracy", "adversarial_accuracy", "clean_lkd", "adversarial_lkd")
        self._monitors = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True
        backend.prepare(network)

    def compile(self, optimizer: Any = "adam", method: Method | None = None, **kwargs: Any) -> None:
        """Configure training.

        Args:
            optimizer: as in ``keras.Model.compile``.
            method: what is crafted and what loss is taken; default `kbl.methods.Natural`.
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
        if isinstance(method, ATBLR) and not has_gmm_head(self.network):
            raise ValueError("ATBLR reads likelihoods: the network's last layer must be kbl.layers.GMMHead")
        self.method = method
        super().compile(optimizer=optimizer, **kwargs)

    @property
    def metrics(self) -> list[Any]:
        """Keras' metrics, and of this model's own those that the method and the head give a meaning."""
        shown = {"clean_accuracy"}
        if self.method.attack is not None:
            shown.add("adversarial_accuracy")
        if has_gmm_head(self.network):
            shown |= {name.replace("accuracy", "lkd") for name in shown}
        hidden = [monitor for name, monitor in self._monitors.items() if name not in shown]
        return [metric for metric in super().metrics if not any(metric is other for other in hidden)]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return logits (batch, K) of images; of a pair (clean, adversarial), what the method's forward returns."""
        if isinstance(inputs, tuple):
            x, x_adv = inputs
            return self.method.forward(self.network, x, x_adv, bool(training))
        return self.network(inputs, training=training)

    def train_step(self, *arguments: Any) -> Any:
        """Augment and attack the batch, then Keras' own step."""
        return backend.with_adversaries(self, super().train_step, True, *arguments)

    def test_step(self, *arguments: Any) -> Any:
        """Attack the batch at full ε, from the same random starts every time, then Keras' own step."""
        return backend.with_adversaries(self, super().test_step, False, *arguments)

    def attacked(self, data: Any, training: bool) -> Any:
        """Return the batch with images replaced by the pair (clean, adversarial), if the method has an attack."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = ops.cast(x, "float32")
        step = ops.convert_to_tensor(self.steps_taken) if training else None
        if training and self.augmentation is not None:
            x = self.augmentation(x, training=True)
        if self.method.attack is not None:
            index = ops.arange(ops.shape(x)[0], dtype="int32")
            key = random.key(self.seed, _VALIDATION if step is None else step)
            x = (x, ops.stop_gradient(self.method.craft(self.network, x, y, index, key, step)))
        if training:
            self.steps_taken.assign_add(1)  # last: on torch and TensorFlow `step` is the variable itself
        return x, y, sample_weight

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the mean of the method's loss over the batch, weighted, plus the network's own losses."""
        outputs = y_pred if isinstance(y_pred, (tuple, list)) else (y_pred,)
        outputs = tuple(ops.cast(logits, "float32") for logits in outputs)
        self._monitor(y, *outputs)
        loss = _WeightedMean(name="mean")(y, self.method.loss(y, *outputs), sample_weight)
        return loss + super().compute_loss(training=training) if self.losses else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Give the metrics of ``compile`` the clean images' logits."""
        clean = y_pred[0] if isinstance(y_pred, (tuple, list)) else y_pred
        return super().compute_metrics(x, y, clean, sample_weight)

    def _monitor(self, y: Tensor, clean: Tensor, adversarial: Tensor | None = None, *_: Tensor) -> None:
        indices = to_indices(y)
        for name, logits in (("clean", clean), ("adversarial", adversarial)):
            if logits is None:
                continue
            logits = ops.stop_gradient(logits)
            right = ops.cast(ops.cast(ops.argmax(logits, -1), "int32") == indices, "float32")
            self._monitors[f"{name}_accuracy"].update_state(right)
            if has_gmm_head(self.network):
                self._monitors[f"{name}_lkd"].update_state(likelihood_regularization(indices, logits))

    def fit(self, x: Any = None, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """Train as ``keras.Model.fit``; training that runs away raises `kbl.DivergenceError`.

        Raises:
            ValueError: `x` is an array with values outside [0, 1].
            DivergenceError: the loss is not finite, or the likelihood term grows without end.
        """
        if isinstance(x, np.ndarray) and x.size and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"x must hold pixels in [0, 1]. Received: values from {x.min():.6g} to {x.max():.6g}. "
                "Divide 8-bit pixels by 255; the network scales its input itself"
            )
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            # First of all, so that no other callback saves what has run away.
            callbacks = [StopOnDivergence(), *keras.tree.flatten(callbacks or [])]
            if isinstance(x, Batches):
                kwargs["shuffle"] = False
                start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: x.start(epoch))
                callbacks.append(start)
        return super().fit(x, *args, callbacks=callbacks, **kwargs)

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
        return {**super().get_compile_config(), "method": keras.saving.serialize_keras_object(self.method)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the saved model was."""
        config = keras.saving.deserialize_keras_object(config)
        for name in ("loss", "loss_weights"):
            config.pop(name, None)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)
