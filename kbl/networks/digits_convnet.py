"""A small network for the embedded 8×8 digits, quick on a CPU."""

import keras
from keras import layers

from kbl.networks import blocks
from kbl.networks.heads import HeadName, head_layer


def digits_convnet(
    head: HeadName = "gmm",
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (8, 8, 1),
    batch_normalization: bool = False,
) -> keras.Model:
    """Build convolutions of 16 (3×3) and 32 filters (4×4, stride 2), and a dense layer of 64.

    Args:
        head: "gmm", "gmm_diagonal" or "dense".
        num_classes: at least 2.
        image_shape: (H, W, C), channels last.
        batch_normalization: normalise after each convolution and the dense layer, before its ReLU.

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, num_classes); 41,856
        weights by default.
    """
    normalise = batch_normalization
    images = keras.Input(image_shape, name="images")
    x = blocks.convolution(images, 16, 3, strides=1, normalise=normalise, name="conv1")
    x = blocks.convolution(x, 32, 4, strides=2, normalise=normalise, name="conv2")
    x = layers.Flatten("channels_last", name="flatten")(x)
    x = blocks.dense(x, 64, normalise=normalise, name="features")
    return keras.Model(images, head_layer(head, num_classes)(x), name="digits_convnet")
