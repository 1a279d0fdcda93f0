"""A small PixelCNN: the distribution of images, pixel by pixel."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kbl.layers.masked_conv import MaskedConv2D
from kbl.typing import Network, Tensor


def pixelcnn(
    image_shape: tuple[int, int, int], levels: int, filters: int = 32, blocks: int = 3
) -> keras.Model:
    """Build a PixelCNN: a masked 7×7 convolution, residual blocks of 1×1, 3×3 and 1×1, and a softmax for each pixel.

    Each colour of each pixel is a level of `levels`, level l standing for l / (levels - 1), and is predicted from the
    pixels before it in raster order and from the colours before it (van den Oord et al., arXiv:1601.06759, §3.5).

    Differs from the paper: small; and as there, stacked 3×3 convolutions do not see all of what is to the upper right.

    Args:
        image_shape: (H, W, C), channels last.
        levels: at least 2.
        filters: of the 3×3 convolutions, for each colour; the residual stream has twice as many.
        blocks: number of residual blocks.

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, H, W, C, levels).

    Raises:
        ValueError: there are fewer than two levels.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2. Received: levels={levels}")
    height, width, colours = image_shape
    wide, narrow = 2 * filters * colours, filters * colours

    def convolve(x: Tensor, channels: int, size: int, name: str, kind: Any = "B") -> Tensor:
        return MaskedConv2D(channels, size, kind, colours, name=name)(x)

    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(2.0, -1.0, name="scale")(images)
    x = convolve(x, wide, 7, "first", "A")
    for block in range(1, blocks + 1):
        y = convolve(layers.ReLU()(x), narrow, 1, f"block{block}_in")
        y = convolve(layers.ReLU()(y), narrow, 3, f"block{block}_context")
        x = layers.Add()([x, convolve(layers.ReLU()(y), wide, 1, f"block{block}_out")])
    x = convolve(layers.ReLU()(x), narrow, 1, "second")
    x = convolve(layers.ReLU()(x), colours * levels, 1, "last")
    return keras.Model(images, layers.Reshape((height, width, colours, levels))(x), name="pixelcnn")


def to_levels(x: Any, levels: int) -> np.ndarray[Any, Any]:
    """Return the nearest level of each pixel of images in [0, 1], int32."""
    return np.rint(np.asarray(x, "float64") * (levels - 1)).astype("int32")


def bits_per_dimension(network: Network, x: Any, batch_size: int = 256) -> np.ndarray[Any, Any]:
    """Return how unlikely each image is: its mean negative log2-likelihood a pixel and colour.

    Args:
        network: a `pixelcnn`.
        x: (N, H, W, C) images in [0, 1].
        batch_size: images at a time.

    Returns:
        (N,) float64 ≥ 0; log2(levels) for a model that knows nothing.
    """
    x = np.asarray(x, "float32")
    found = []
    for start in range(0, len(x), batch_size):
        images = x[start : start + batch_size]
        logits = network(images, training=False)
        told = ops.take_along_axis(
            ops.log_softmax(logits, axis=-1), to_levels(images, logits.shape[-1])[..., None], axis=-1
        )
        found.append(-ops.convert_to_numpy(ops.mean(told, axis=(1, 2, 3, 4))) / math.log(2))
    return np.concatenate(found).astype("float64")
