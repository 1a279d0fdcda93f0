"""The line search over the constant between distance and loss, of Szegedy et al. and of Carlini & Wagner.

Both minimise ``‖r‖² + c·loss(x + r)`` for a constant c of each image: the greater c, the more the loss counts, and the
smallest c at which an adversarial image is found gives the nearest one.
"""

from keras import ops

from kbl.typing import Tensor

LARGEST = 1e10
"""No constant grows beyond it."""


def next_constant(found: Tensor, c: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the constant to try next, and the bounds that the last one has set.

    ``upper ← min(upper, c)`` where c has found an adversarial image, else ``lower ← max(lower, c)``; then
    ``c ← (lower + upper) / 2``, or ten times c as long as none has found one.

    Args:
        found: (batch,) bool, whether an adversarial image was found at c.
        c: (batch,) float32 > 0, the constant just tried.
        lower: (batch,) float32, the greatest constant that found none; at first 0.
        upper: (batch,) float32, the smallest that found one; at first infinite.

    Returns:
        c, lower and upper, (batch,) float32 each. An image's numbers depend on its own alone.

    Reference: Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", 2017, arXiv:1608.04644, § V.
    """
    upper = ops.where(found, ops.minimum(upper, c), upper)
    lower = ops.where(found, lower, ops.maximum(lower, c))
    bounded = upper < float("inf")
    middle = (lower + ops.where(bounded, upper, 0.0)) / 2.0
    return ops.where(bounded, middle, ops.minimum(10.0 * c, LARGEST)), lower, upper
