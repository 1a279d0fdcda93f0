"""The Gaussian-mixture head."""

from typing import Any, Literal, get_args

import keras
from keras import ops

from kbl.typing import Network, Tensor

Through = Literal["features and means", "features", "means"]


@keras.saving.register_keras_serializable(package="kbl")
class GMMHead(keras.layers.Layer):
    """Class log-likelihoods of a Gaussian mixture with one identity-covariance component a class.

    ``logit_k = -½‖h - μ_k‖² = h·μ_k - ½‖μ_k‖² - ½‖h‖²``, by one matrix product. The softmax of the logits is the
    posterior of Eq. 4 and ``-2 logit_y`` the regularization of Eq. 6 of the ATBLR paper (§3.2, §3.3). It stands in for
    ``Dense(num_classes)`` with the same number of weights but for the bias, and always computes in float32.

    Args:
        num_classes: K ≥ 1.
        means_initializer: initializer of the means.

    Input: features, (batch, C). Output: logits, (batch, K) float32, ≤ 0 up to rounding.
    Weight: `means`, (K, C) float32.

    Raises:
        ValueError: `num_classes` is not a positive integer, or the input is not of rank 2.
    """

    def __init__(self, num_classes: int, means_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes must be a positive integer. Received: num_classes={num_classes}")
        self.num_classes = num_classes
        self.means_initializer = keras.initializers.get(means_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the means for features of the last axis' length."""
        self.means = self.add_weight(
            name="means",
            shape=(self.num_classes, input_shape[-1]),
            initializer=self.means_initializer,
            dtype="float32",
            autocast=False,
        )

    def call(self, features: Tensor) -> Tensor:
        """Return the logits, (batch, K) float32."""
        return self.log_likelihood(features)

    def log_likelihood(self, features: Tensor, through: Through = "features and means") -> Tensor:
        """Return the logits with their gradient let through the features, the means or both.

        Args:
            features: (batch, C).
            through: where the gradient flows; the values are the same.

        Returns:
            (batch, K) float32.

        Raises:
            ValueError: `through` is none of these.
        """
        if through not in get_args(Through):
            raise ValueError(f"through must be one of {get_args(Through)}. Received: through={through!r}")
        features = ops.cast(features, "float32")
        means = ops.convert_to_tensor(self.means)
        if through == "features":
            means = ops.stop_gradient(means)
        elif through == "means":
            features = ops.stop_gradient(features)
        cross = ops.matmul(features, ops.transpose(means))
        half_norms = 0.5 * ops.sum(ops.square(means), axis=-1)
        return cross - half_norms - 0.5 * ops.sum(ops.square(features), axis=-1, keepdims=True)

    def compute_output_spec(self, features: Tensor) -> Any:
        """Return the logits' shape and dtype."""
        return keras.KerasTensor((features.shape[0], self.num_classes), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {
            "num_classes": self.num_classes,
            "means_initializer": keras.initializers.serialize(self.means_initializer),
        }
        return {**super().get_config(), **config}


def features_and_head(network: Network) -> tuple[Any, GMMHead]:
    """Split a network into the model of its deepest features h(x) and its Gaussian head; weights are shared.

    Raises:
        ValueError: the network is not a Sequential or Functional model that ends with a `GMMHead`.
    """
    last = getattr(network, "layers", [None])[-1]
    if not isinstance(last, GMMHead) or getattr(network, "inputs", None) is None:
        raise ValueError(
            "Expected a Sequential or Functional network with an Input, whose last layer is kbl.layers.GMMHead. "
            f"Received: {network}"
        )
    head: GMMHead = network.layers[-1]
    # Of one input the tensor itself: a model made with a list warns when it is called with a tensor.
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.inputs
    return keras.Model(inputs, head.input, name=f"{network.name}_features"), head


def has_gmm_head(network: Network) -> bool:
    """Tell whether the network's last layer, or that of the model that is its last layer, is a `GMMHead`."""
    last = getattr(network, "layers", ())[-1:]
    return any(isinstance(layer, GMMHead) or has_gmm_head(layer) for layer in last)
