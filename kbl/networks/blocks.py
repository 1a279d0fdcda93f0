"""What the plain convolutional networks are built of: a weight layer, BatchNormalization, ReLU."""

from keras import layers

from kbl.typing import Tensor


def convolution(
    x: Tensor, filters: int, kernel_size: int, *, strides: int, normalise: bool, name: str
) -> Tensor:
    """Convolve "same"-padded images (batch, H, W, C), then ReLU.

    With `normalise`, BatchNormalization comes before the ReLU and takes the bias' place.
    """
    convolve = layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        data_format="channels_last",
        use_bias=not normalise,
        name=name,
    )
    return _activate(convolve(x), normalise, name)


def dense(x: Tensor, units: int, *, normalise: bool, name: str) -> Tensor:
    """Multiply features (batch, C) by a matrix, then ReLU; `normalise` as in `convolution`."""
    return _activate(layers.Dense(units, use_bias=not normalise, name=name)(x), normalise, name)


def _activate(x: Tensor, normalise: bool, name: str) -> Tensor:
    if normalise:
        x = layers.BatchNormalization(name=f"{name}_normalization")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
