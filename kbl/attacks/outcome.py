"""What an attack found, and how far it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Progress:
    """How far an attack is: `done` of `total` images' work, and how many images still stand."""

    done: float
    total: int
    standing: int


@dataclass
class Outcome:
    """What an attack found, in NumPy arrays of N.

    Args:
        x_adv: (N, ...) float32, the best image.
        fooled: (N,) bool: it is misclassified (targeted: classified as the target).
        score: (N,) its loss, or minus its distance from a minimum-norm attack; -inf where none was tried.
        forward: forward passes of single images.
        backward: backward passes of single images.
    """

    x_adv: np.ndarray[Any, Any]
    fooled: np.ndarray[Any, Any]
    score: np.ndarray[Any, Any]
    forward: int = 0
    backward: int = 0
