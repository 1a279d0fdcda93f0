"""The paper's MNIST network (§4.1), that of Madry et al."""

import keras
from keras import layers

from kbl.networks import blocks
from kbl.networks.heads import HeadName, head_layer


def mnist_convnet(
    head: HeadName = "gmm",
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    batch_normalization: bool = False,
) -> keras.Model:
    """Build convolutions of 32 and 64 filters (5×5), each with 2×2 pooling, and a dense of 1,024.

    Args:
        head: "gmm", "gmm_diagonal" or "dense".
        num_classes: at least 2.
        image_shape: (H, W, C), channels last.
        batch_normalization: normalise after each convolution and the dense layer, before its ReLU
            (the paper's network does not).

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, num_classes); 3,274,624
        weights by default.

    References:
        A. Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks,
        arXiv:1706.06083, §5.
    """
    normalise = batch_normalization
    images = keras.Input(image_shape, name="images")
    x = blocks.convolution(images, 32, 5, strides=1, normalise=normalise, name="conv1")
    x = layers.MaxPooling2D(2, data_format="channels_last", name="conv1_pool")(x)
    x = blocks.convolution(x, 64, 5, strides=1, normalise=normalise, name="conv2")
    x = layers.MaxPooling2D(2, data_format="channels_last", name="conv2_pool")(x)
    x = layers.Flatten("channels_last", name="flatten")(x)
    x = blocks.dense(x, 1024, normalise=normalise, name="features")
    return keras.Model(images, head_layer(head, num_classes)(x), name="mnist_convnet")
