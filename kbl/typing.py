"""Names for the values that pass between rooms."""

from typing import Any, Literal, TypeAlias

# A tensor of the active backend, or anything it converts from (a NumPy array, a list).
Tensor: TypeAlias = Any
# A Keras model that maps images to logits.
Network: TypeAlias = Any

Norm: TypeAlias = Literal["linf", "l2"]
LossName: TypeAlias = Literal[
    "cross_entropy", "margin", "dlr", "likelihood", "nearest_mean", "distance_margin"
]
