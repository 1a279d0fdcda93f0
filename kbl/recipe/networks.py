"""The networks that a recipe may name, with their fields and defaults."""

from typing import Literal

from kbl.recipe.fields import Flag, Section


class Convnet(Section):
    """A plain convolutional network."""

    name: Literal["digits_convnet", "mnist_convnet", "mnist_small_convnet"]
    head: Literal["gmm", "dense"] = "gmm"
    batch_normalization: Flag = False


# A network with the same keys is one more name above; one with its own keys is a class, joined as in `Attack`.
Network = Convnet
