"""The Gaussian-mixture head."""

from typing import Any, Literal, get_args

import keras
from keras import ops

from kbl.typing import Network, Tensor

Through = Literal["features and means", "features", "means"]
Covariance = Literal["identity", "diagonal"]


@keras.saving.register_keras_serializable(package="kbl")
class GMMHead(keras.layers.Layer):
    """Class log-likelihoods of a Gaussian mixture with one component a class.

    ``logit_k = -½‖h - μ_k‖² = h·μ_k - ½‖μ_k‖² - ½‖h‖²``, by one matrix product. The softmax of the logits is the
    posterior of Eq. 4 and ``-2 logit_y`` the regularization of Eq. 6 of the ATBLR paper (§3.2, §3.3). It stands in for
    ``Dense(num_classes)`` with the same number of weights but for the bias, and always computes in float32.

    With a diagonal covariance (Wan et al., arXiv:1803.02988) each class learns a variance for each feature:
    ``logit_k = -½ Σ (h - μ_k)² / σ_k² - ½ Σ log σ_k²``, by two matrix products.

    Args:
        num_classes: K ≥ 1.
        means_initializer: initializer of the means.
        covariance: "identity", or "diagonal".

    Input: features, (batch, C). Output: logits, (batch, K) float32; of the identity ≤ 0 up to rounding.
    Weights: `means`, (K, C) float32; of the diagonal also `log_variances`, (K, C) float32, zero at first.

    Raises:
        ValueError: an argument is not as described, or the input is not of rank 2.
    """

    def __init__(
        self,
        num_classes: int,
        means_initializer: Any = "glorot_uniform",
        covariance: Covariance = "identity",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes must be a positive integer. Received: num_classes={num_classes}")
        if covariance not in get_args(Covariance):
            raise ValueError(
                f"covariance must be one of {get_args(Covariance)}. Received: covariance={covariance!r}"
            )
        self.num_classes = num_classes
        self.covariance = covariance
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
        if self.covariance == "diagonal":
            self.log_variances = self.add_weight(
                name="log_variances",
                shape=(self.num_classes, input_shape[-1]),
                initializer="zeros",
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
        weights = [ops.convert_to_tensor(weight) for weight in self.weights]
        if through == "features":
            weights = [ops.stop_gradient(weight) for weight in weights]
        elif through == "means":
            features = ops.stop_gradient(features)
        if self.covariance == "identity":
            return _minus_half_distances(features, weights[0])
        means, log_variances = weights
        half_determinants = 0.5 * ops.sum(log_variances, axis=-1)
        return _minus_half_distances(features, means, ops.exp(-log_variances)) - half_determinants

    def half_distances(self, features: Tensor) -> Tensor:
        """Return half the squared (Mahalanobis) distance to each mean, ``½ (h - μ_k)ᵀ Σ_k⁻¹ (h - μ_k)``.

        Args:
            features: (batch, C).

        Returns:
            (batch, K) float32, ≥ 0 up to rounding.
        """
        features, means = ops.cast(features, "float32"), ops.convert_to_tensor(self.means)
        if self.covariance == "identity":
            return -_minus_half_distances(features, means)
        return -_minus_half_distances(features, means, ops.exp(-ops.convert_to_tensor(self.log_variances)))

    def compute_output_spec(self, features: Tensor) -> Any:
        """Return the logits' shape and dtype."""
        return keras.KerasTensor((features.shape[0], self.num_classes), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {
            "num_classes": self.num_classes,
            "means_initializer": keras.initializers.serialize(self.means_initializer),
            "covariance": self.covariance,
        }
        return {**super().get_config(), **config}


def _minus_half_distances(features: Tensor, means: Tensor, precisions: Tensor | None = None) -> Tensor:
    """-½ Σ (h - μ)² / σ² of each feature and mean, (batch, K), without a (batch, K, C) tensor."""
    if precisions is None:
        cross = ops.matmul(features, ops.transpose(means))
        half_norms = 0.5 * ops.sum(ops.square(means), axis=-1)
        return cross - half_norms - 0.5 * ops.sum(ops.square(features), axis=-1, keepdims=True)
    cross = ops.matmul(features, ops.transpose(means * precisions))
    half_norms = 0.5 * ops.sum(ops.square(means) * precisions, axis=-1)
    return cross - half_norms - 0.5 * ops.matmul(ops.square(features), ops.transpose(precisions))


def has_gmm_head(network: Network, covariance: Covariance | None = None) -> bool:
    """Tell whether the network's last layer, or that of the model that is its last layer, is a `GMMHead`.

    Args:
        network: any Keras model.
        covariance: which one the head must have; by default any.
    """
    return any(
        (isinstance(layer, GMMHead) and covariance in (None, layer.covariance))
        or has_gmm_head(layer, covariance)
        for layer in getattr(network, "layers", ())[-1:]
    )
