"""Residual networks: He's for CIFAR, their wide variants, and the 18-layer ones that the field compares on."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from kbl.layers.denoise import Denoise, Denoising
from kbl.networks.heads import HeadName, head_layer
from kbl.typing import Tensor

Block = Callable[..., Tensor]


def residual_network(
    head: HeadName = "gmm",
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    denoise: Denoising = "none",
    *,
    block: Block,
    blocks: int,
    stem: int,
    widths: tuple[int, ...],
    preactivated: bool = False,
    name: str = "residual_network",
) -> keras.Model:
    """Build a residual network: pixels to (x - ½) / ¼, a 3×3 convolution, stages of blocks, global average pooling.

    Each stage but the first halves the image. BatchNormalization has momentum 0.9 and epsilon 1e-5; convolutions have
    no bias and are drawn as He et al. (arXiv:1502.01852, fan-out).

    Args:
        head: "gmm", "gmm_diagonal" or "dense".
        num_classes: at least 2.
        image_shape: (H, W, C), channels last.
        denoise: kind of the `kbl.layers.Denoise` block at the end of each stage, or "none".
        block: what a residual block is.
        blocks: blocks a stage.
        stem: filters of the first convolution.
        widths: filters of each stage.
        preactivated: normalise and activate before each convolution, not after it (arXiv:1603.05027).
        name: the model's.

    Returns:
        A model from images (batch, H, W, C) in [0, 1] to logits (batch, num_classes).
    """
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(4.0, offset=-2.0, name="rescaling")(images)
    x = convolution(x, stem, 3, name="stem")
    if not preactivated:
        x = activate(x, "stem")
    for stage, filters in enumerate(widths, 1):
        for number in range(1, blocks + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(x, filters, stride, name=f"stage{stage}_block{number}")
        if denoise != "none":
            x = Denoise(denoise, name=f"stage{stage}_denoise")(x)
    if preactivated:
        x = activate(x, "last")
    x = layers.GlobalAveragePooling2D("channels_last", name="features")(x)
    return keras.Model(images, head_layer(head, num_classes)(x), name=name)


def convolution(x: Tensor, filters: int, kernel_size: int, *, strides: int = 1, name: str) -> Tensor:
    """Convolve "same"-padded images without a bias."""
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        kernel_initializer=initializer,
        name=f"{name}_conv",
    )(x)


def normalise(x: Tensor, name: str) -> Tensor:
    """Normalise over the batch."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


def activate(x: Tensor, name: str) -> Tensor:
    """Normalise, then ReLU."""
    return layers.ReLU(name=f"{name}_relu")(normalise(x, name))


def plain_block(x: Tensor, filters: int, stride: int, *, projects: bool, name: str) -> Tensor:
    """Two convolutions, each followed by normalisation; the shortcut joins before the last ReLU (arXiv:1512.03385)."""
    y = activate(convolution(x, filters, 3, strides=stride, name=f"{name}_1"), f"{name}_1")
    y = normalise(convolution(y, filters, 3, name=f"{name}_2"), f"{name}_2")
    if stride > 1 or x.shape[-1] != filters:
        if projects:
            x = normalise(
                convolution(x, filters, 1, strides=stride, name=f"{name}_shortcut"), f"{name}_shortcut"
            )
        else:
            pool = layers.AveragePooling2D(1, stride, data_format="channels_last", name=f"{name}_pool")
            x = _padded(pool(x) if stride > 1 else x, filters, name)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def preactivated_block(x: Tensor, filters: int, stride: int, *, projects: bool, name: str) -> Tensor:
    """Normalisation and ReLU before each of two convolutions (arXiv:1603.05027); a projection takes the activated."""
    before = activate(x, f"{name}_1")
    y = convolution(before, filters, 3, strides=stride, name=f"{name}_1")
    y = convolution(activate(y, f"{name}_2"), filters, 3, name=f"{name}_2")
    if stride > 1 or x.shape[-1] != filters:
        if projects:
            x = convolution(before, filters, 1, strides=stride, name=f"{name}_shortcut")
        else:
            pool = layers.AveragePooling2D(stride, stride, "same", "channels_last", name=f"{name}_pool")
            x = _padded(pool(x) if stride > 1 else x, filters, name)
    return layers.Add(name=f"{name}_add")([x, y])


def _padded(x: Tensor, filters: int, name: str) -> Tensor:
    """Add channels of zeros on both sides, up to `filters`."""
    missing = filters - x.shape[-1]
    # ZeroPadding2D pads two middle axes: channels are the second once the pixels are one axis.
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height * width, channels, 1), name=f"{name}_flat")(x)
    padding = ((0, 0), (missing // 2, missing - missing // 2))
    x = layers.ZeroPadding2D(padding, "channels_last", name=f"{name}_pad")(x)
    return layers.Reshape((height, width, filters), name=f"{name}_unflat")(x)


def _network(name: str, text: str, **structure: Any) -> Callable[..., keras.Model]:
    """Name one of the networks, with its documentation."""
    build = partial(residual_network, name=name, **structure)
    build.__doc__ = text
    return build


_HE = {"block": partial(plain_block, projects=False), "stem": 16, "widths": (16, 32, 64)}
_WIDE = {"block": partial(preactivated_block, projects=False), "stem": 16, "preactivated": True}
_LARGE = {"stem": 64, "widths": (64, 128, 256, 512), "blocks": 2}

resnet8 = _network("resnet8", "One block a stage: He's form at a size for a CPU.", blocks=1, **_HE)
resnet20 = _network("resnet20", "Three blocks a stage (He et al., arXiv:1512.03385, §4.2).", blocks=3, **_HE)
resnet32 = _network(
    "resnet32",
    "The paper's ResNet-32: five blocks a stage (He et al., arXiv:1512.03385, §4.2), shortcuts without weights.",
    blocks=5,
    **_HE,
)
wide_resnet8 = _network(
    "wide_resnet8",
    "Twice as wide as `resnet8`, activated first.",
    blocks=1,
    widths=(32, 64, 128),
    **_WIDE,
)
wide_resnet32 = _network(
    "wide_resnet32",
    "The paper's WideResNet-32, after Madry et al. (arXiv:1706.06083): ten times as wide as `resnet32`, activated "
    "first, shortcuts without weights.\n\n"
    "Differs from their code, which has leaky ReLU, standardises each image by its own mean and deviation, hands the "
    "stem to the first shortcut normalised and activated, and has 1e-3 for BatchNormalization's epsilon.",
    blocks=5,
    widths=(160, 320, 640),
    **_WIDE,
)
wide_resnet34_10 = _network(
    "wide_resnet34_10",
    "WideResNet-34-10 (Zagoruyko & Komodakis, arXiv:1605.07146), with projections, as TRADES uses it.",
    block=partial(preactivated_block, projects=True),
    blocks=5,
    stem=16,
    widths=(160, 320, 640),
    preactivated=True,
)
resnet18 = _network(
    "resnet18",
    "ResNet-18 for 32×32 images: no pooling at the start, projections.",
    block=partial(plain_block, projects=True),
    **_LARGE,
)
preactresnet18 = _network(
    "preactresnet18",
    "PreActResNet-18 for 32×32 images, as Rice et al. (arXiv:2002.11569) use it.",
    block=partial(preactivated_block, projects=True),
    preactivated=True,
    **_LARGE,
)
