"""The pattern of the L2 Square attack (arXiv:1912.00049): two opposite peaks in a square."""

import functools
from typing import Any

import numpy as np
from keras import ops

from kbl import random
from kbl.typing import Tensor


def signs_of(draw: Tensor) -> Tensor:
    """Return -1.0 or 1.0 for draws from [0, 1), of the same shape."""
    return ops.where(draw < 0.5, -1.0, 1.0)


def peaks(rows: Tensor, columns: Tensor, side: Tensor, turned: Tensor, most: int) -> Tensor:
    """Return the pattern η of the L2 attack: a positive and a negative peak, one in each half of a square.

    At distance d = max(|row|, |column|) from a peak it is ``Σ_{k=d+1}^{m} 1/k²`` with m = ⌊side / 2⌋ + 1, and each
    half has length √½.

    Args:
        rows: whole numbers counted from the square's corner; what lies outside the square has no meaning.
        columns: likewise.
        side: of a shape that goes with theirs.
        turned: bool, whether the halves lie side by side and not one above the other.
        most: the greatest side.
    """
    sums, lengths = _heights(most)
    rows, columns = ops.where(turned, columns, rows), ops.where(turned, rows, columns)
    half = side // 2
    is_first = rows < half
    peak = ops.where(is_first, half // 2, half + (side - half) // 2)
    distance = ops.minimum(ops.maximum(ops.abs(rows - peak), ops.abs(columns - half)), half + 1)
    half, side, distance = (ops.cast(number, "int32") for number in (half, side, distance))
    height = ops.take(sums, half + 1) - ops.take(sums, distance)
    return height / ops.where(is_first, ops.take(lengths[0], side), ops.take(lengths[1], side))


@functools.cache
def _heights(most: int) -> tuple[Any, Any]:
    """Return ``Σ_{k≤d} 1/k²`` for every d, and what brings the halves of a square of every side to ±√½, (2, most + 1).

    A half's length without that is the root of the sum of the squared heights of its pixels; of side 1 the first half
    is empty.
    """
    sums = np.cumsum([0.0, *(1.0 / k**2 for k in range(1, most // 2 + 2))])
    lengths = np.ones((2, most + 1))
    for side in range(1, most + 1):
        half = side // 2
        row, column = np.arange(side)[:, None], np.arange(side)
        peak = np.where(row < half, half // 2, half + (side - half) // 2)
        distance = np.maximum(abs(row - peak), abs(column - half))
        squares = (sums[half + 1] - sums[np.minimum(distance, half + 1)]) ** 2
        lengths[:, side] = (2 * squares[:half].sum()) ** 0.5 or 1.0, -((2 * squares[half:].sum()) ** 0.5)
    return sums.astype("float32"), lengths.astype("float32")


def tiles(key: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Cover the image with squares of a fifth of its side, each turned and signed by chance, (batch, H, W, C)."""
    height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    rows = np.arange(height)[:, None, None] - height % side // 2
    columns = np.arange(width)[:, None] - width % side // 2
    inside = (rows >= 0) & (rows < down * side) & (columns >= 0) & (columns < across * side)
    tile = np.where(inside, rows // side * across + columns // side, 0).ravel().astype("int32")
    draw = random.uniform(key, index, (down * across, 1 + channels))
    draw = ops.reshape(ops.take(draw, tile, axis=1), (-1, height, width, 1 + channels))
    rows, columns = (ops.convert_to_tensor((line % side).astype("int32")) for line in (rows, columns))
    pattern = peaks(rows, columns, ops.convert_to_tensor(side, "int32"), draw[..., :1] < 0.5, side)
    return ops.where(inside, pattern * signs_of(draw[..., 1:]), 0.0)
