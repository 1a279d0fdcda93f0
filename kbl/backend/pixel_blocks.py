"""The gradient of a convolution in images of few channels, as a convolution that gives blocks of pixels."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from keras import ops

from kbl.typing import Tensor

_VECTOR = 16  # numbers of float32 that a vector holds


@dataclass(frozen=True, eq=False)
class PixelBlocks:
    """How slopes of a convolution's outputs become the gradient in its images.

    On a CPU a convolution fills its vectors with output channels, and a gradient in gray images has one: it takes a
    fifth of an attack's step on the MNIST convnet. With 4×4 pixels as 16 channels vectors are full. The outputs that
    saw a pixel of a block lie where they do for every block, `strides` further on, so all blocks are one convolution
    of the slopes: its kernel has for each pixel the weights by which they saw it, and zeros.

    Args:
        side: of a block.
        counts: of blocks, down and across.
        strides: of the convolution of the slopes.
        pads: what the slopes are padded by: (before, after), down and across.
        reach: height and width of its kernel.
        taps: (product of reach · side²,) int32, the tap of the convolution's kernel by which an output saw a pixel,
            counted row by row; one more than there are where it did not.
    """

    side: int
    counts: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    reach: tuple[int, int]
    taps: np.ndarray[Any, Any]

    def kernel(self, kernel: Tensor) -> Tensor:
        """Return the kernel (*reach, F, side² · C) made of that of the convolution, (height, width, C, F)."""
        *_, channels, filters = kernel.shape
        weights = ops.pad(ops.reshape(kernel, (-1, channels * filters)), ((0, 1), (0, 0)))
        made = ops.reshape(
            ops.take(weights, self.taps, axis=0), (*self.reach, self.side**2, channels, filters)
        )
        return ops.reshape(ops.transpose(made, (0, 1, 4, 2, 3)), (*self.reach, filters, -1))

    def images(self, blocks: Tensor, height: int, width: int) -> Tensor:
        """Return images (batch, height, width, C) of blocks (batch, *counts, side² · C)."""
        (down, across), side = self.counts, self.side
        pixels = ops.reshape(blocks, (-1, down, across, side, side, blocks.shape[-1] // side**2))
        pixels = ops.transpose(pixels, (0, 1, 3, 2, 4, 5))
        return ops.reshape(pixels, (-1, down * side, across * side, pixels.shape[-1]))[:, :height, :width]


@lru_cache(maxsize=256)
def pixel_blocks(
    images: tuple[int, int],
    outputs: tuple[int, int],
    kernel: tuple[int, int, int, int],
    strides: tuple[int, int],
    before: tuple[int, int],
) -> PixelBlocks | None:
    """Return the blocks of a convolution that is not dilated, or None where they do not help.

    Args:
        images: height and width, as are those of the outputs.
        outputs: theirs.
        kernel: shape (height, width, channels, filters).
        strides: down and across.
        before: what the images are padded by, above and to the left.
    """
    *sides, channels, filters = kernel
    side = 4 if channels == 1 else 2
    # With more filters the slopes, which are read as often as a kernel is wide, cost more than vectors save.
    helps = side**2 * channels <= _VECTOR and 8 <= filters * channels <= 64 and min(sides) >= 3
    if not helps or any(side % stride for stride in strides):
        return None
    rows, *down = _along(images[0], outputs[0], sides[0], strides[0], before[0], side)
    columns, *across = _along(images[1], outputs[1], sides[1], strides[1], before[1], side)
    if min(*down, *across) < 0:
        return None
    pads = (down[0], down[1]), (across[0], across[1])
    reach = len(rows), len(columns)
    rows, columns = rows[:, None, :, None], columns[:, None]
    taps = (
        np.where((rows < 0) | (columns < 0), prod(sides), rows * sides[1] + columns).ravel().astype("int32")
    )
    counts = -(-images[0] // side), -(-images[1] // side)
    steps = side // strides[0], side // strides[1]
    return PixelBlocks(side, counts, steps, pads, reach, taps)


def _along(
    size: int, outputs: int, taps: int, stride: int, before: int, side: int
) -> tuple[np.ndarray[Any, Any], int, int]:
    """Return along an axis which tap saw a pixel of a block, (reach, side), -1 if none, and how slopes are padded.

    Output o saw pixel p by tap p + before - stride · o.
    """
    first, last = -((taps - 1 - before) // stride), (side - 1 + before) // stride
    output, pixel = np.ogrid[first : last + 1, :side]
    tap = pixel + before - stride * output
    saw = np.where((tap >= 0) & (tap < taps), tap, -1)
    furthest = (-(-size // side) - 1) * side // stride + last
    return saw, -first, furthest - (outputs - 1)
