"""The switch between the two heads: what turns features into logits."""

from typing import Literal, TypeAlias

import keras

from kbl.layers import GMMHead

HeadName: TypeAlias = Literal["gmm", "gmm_diagonal", "dense"]


def head_layer(head: HeadName, num_classes: int) -> keras.layers.Layer:
    """Make the last layer of a network, named "head".

    Args:
        head: "gmm" for the class log-likelihoods of `kbl.layers.GMMHead`, "gmm_diagonal" for those with a learned
            diagonal covariance, "dense" for `keras.layers.Dense`. All return logits of shape (batch, num_classes).
        num_classes: at least 2.

    Raises:
        ValueError: the name is unknown, or there are fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2. Received: num_classes={num_classes}")
    if head == "gmm":
        return GMMHead(num_classes, name="head")
    if head == "gmm_diagonal":
        return GMMHead(num_classes, covariance="diagonal", name="head")
    if head == "dense":
        return keras.layers.Dense(num_classes, name="head")
    raise ValueError(f'`head` must be "gmm", "gmm_diagonal" or "dense". Received: head={head!r}')
