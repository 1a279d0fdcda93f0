"""Feature denoising."""

import math
from typing import Any, Literal, get_args

import keras
from keras import layers, ops

from kbl.typing import Tensor

Denoising = Literal["none", "softmax", "dot_product", "mean", "median"]
Kind = Literal["softmax", "dot_product", "mean", "median"]


@keras.saving.register_keras_serializable(package="kbl")
class Denoise(layers.Layer):
    """Denoising block ``x + norm(conv1x1(filter(x)))`` (Xie et al., arXiv:1812.03411, §4).

    The filter of a feature map x of N places and C channels is

    - "softmax": non-local means ``y_i = Σ_j softmax_j(θ(x_i)·φ(x_j) / √d) x_j``, with θ and φ 1×1 convolutions to
      d = C/2 channels (the paper's Gaussian version);
    - "dot_product": ``y_i = 1/N Σ_j (x_i·x_j) x_j``, without weights;
    - "mean", "median": of the 3×3 neighbourhood, its border repeated.

    The scale of the normalisation begins at 0, so a new block passes its input through, as in the authors' code.

    Args:
        kind: the filter.

    Input and output: (batch, H, W, C), H, W and C known.

    Raises:
        ValueError: `kind` is none of these, or the input is not of rank 4.
    """

    def __init__(self, kind: Kind = "softmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}. Received: kind={kind!r}")
        self.kind = kind
        self.input_spec = layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the convolutions and the normalisation."""
        channels = input_shape[-1]
        assert channels is not None
        self.convolution = _one_by_one(channels, "conv")
        self.normalisation = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, gamma_initializer="zeros", name="norm"
        )
        self.convolution.build(input_shape)
        self.normalisation.build(input_shape)
        if self.kind == "softmax":
            self.theta, self.phi = (_one_by_one(max(channels // 2, 1), name) for name in ("theta", "phi"))
            self.theta.build(input_shape)
            self.phi.build(input_shape)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """Return the denoised feature map."""
        filtered = _local(x, self.kind) if self.kind in ("mean", "median") else self._non_local(x)
        return x + self.normalisation(self.convolution(filtered), training=training)

    def _non_local(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        places = ops.reshape(x, (-1, height * width, channels))
        if self.kind == "softmax":
            theta, phi = (
                ops.reshape(embed(x), (-1, height * width, embed.filters)) for embed in (self.theta, self.phi)
            )
            weights = ops.softmax(
                ops.matmul(theta, ops.transpose(phi, (0, 2, 1))) / math.sqrt(self.theta.filters), axis=-1
            )
            filtered = ops.matmul(weights, places)
        else:
            # (x xᵀ) x = x (xᵀ x): the places need not meet one by one.
            filtered = ops.matmul(places, ops.matmul(ops.transpose(places, (0, 2, 1)), places)) / (
                height * width
            )
        return ops.reshape(filtered, (-1, height, width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind}


def _one_by_one(channels: int, name: str) -> layers.Conv2D:
    """Return a 1×1 convolution."""
    return layers.Conv2D(channels, 1, data_format="channels_last", use_bias=False, name=name)


def _local(x: Tensor, kind: str) -> Tensor:
    """Mean or median of each 3×3 neighbourhood."""
    height, width = x.shape[1:3]
    x = ops.concatenate([x[:, :1], x, x[:, -1:]], axis=1)
    x = ops.concatenate([x[:, :, :1], x, x[:, :, -1:]], axis=2)
    shifted = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    stacked = ops.stack(shifted, axis=-1)
    return ops.mean(stacked, axis=-1) if kind == "mean" else ops.sort(stacked, axis=-1)[..., 4]
