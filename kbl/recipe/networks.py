"""The networks that a recipe may name, with their fields and defaults."""

from typing import Annotated, Literal

from pydantic import Field

from kbl.recipe.fields import Flag, Section

Head = Literal["gmm", "gmm_diagonal", "dense"]


class Convnet(Section):
    """A plain convolutional network."""

    name: Literal["digits_convnet", "mnist_convnet", "mnist_small_convnet"]
    head: Head = "gmm"
    batch_normalization: Flag = False


class ResNet(Section):
    """A residual network; its batch normalization is part of it."""

    name: Literal[
        "resnet8",
        "resnet20",
        "resnet32",
        "resnet18",
        "preactresnet18",
        "wide_resnet8",
        "wide_resnet32",
        "wide_resnet34_10",
    ]
    head: Head = "gmm"
    denoise: Literal["none", "softmax", "dot_product", "mean", "median"] = "none"  # at the end of each stage


Network = Annotated[Convnet | ResNet, Field(discriminator="name")]
