"""PyTorch: a convolution of images of few channels, whose gradient in the images is fast on a CPU."""

from typing import Any

import torch
from torch.nn.functional import conv2d

from kbl.backend.pixel_blocks import PixelBlocks, pixel_blocks
from kbl.typing import Tensor


class NarrowConvolution(torch.autograd.Function):
    """A convolution whose gradient in the images is computed in blocks of pixels."""

    @staticmethod
    def blocks(
        images: Tensor, kernel: Tensor, strides: Any, padding: Any, dilation: Any, groups: int
    ) -> PixelBlocks | None:
        """Return the blocks of pixels, or None where they do not help."""
        if groups != 1 or tuple(dilation) != (1, 1) or images.device.type != "cpu":
            return None
        if images.dtype != torch.float32:
            return None
        (filters, channels, *sides), size = kernel.shape, images.shape[2:]
        outputs = [(size[i] + 2 * padding[i] - sides[i]) // strides[i] + 1 for i in (0, 1)]
        shape = (*sides, channels, filters)
        return pixel_blocks(tuple(size), tuple(outputs), shape, tuple(strides), tuple(padding))

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        strides: Any,
        padding: Any,
        blocks: PixelBlocks,
    ) -> Tensor:
        """Return `torch.nn.functional.conv2d` of the arguments but the last."""
        ctx.save_for_backward(images, kernel)
        ctx.strides, ctx.padding, ctx.biased, ctx.blocks = strides, padding, bias is not None, blocks
        return conv2d(images, kernel, bias, strides, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients in images, kernel and bias."""
        images, kernel = ctx.saved_tensors
        (gradient,) = gradients
        of_images, of_kernel, of_bias = None, None, None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_in_images(gradient, kernel, images.shape[2:], ctx.blocks)
        if any(ctx.needs_input_grad[1:3]):
            _, of_kernel, of_bias = torch.ops.aten.convolution_backward(
                gradient,
                images,
                kernel,
                [len(kernel)] if ctx.biased else None,
                ctx.strides,
                ctx.padding,
                [1, 1],
                False,
                [0, 0],
                1,
                [False, *ctx.needs_input_grad[1:3]],
            )
        return of_images, of_kernel, of_bias, None, None, None


def _gradient_in_images(gradient: Tensor, kernel: Tensor, size: Any, blocks: PixelBlocks) -> Tensor:
    """Return (batch, C, H, W).

    PyTorch pads both sides alike: where more is wanted after than before, whole blocks come before and are dropped.
    """
    taps = blocks.kernel(kernel.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    early = [
        max(-((before - after) // stride), 0)
        for (before, after), stride in zip(blocks.pads, blocks.strides, strict=True)
    ]
    padding = [blocks.pads[i][0] + early[i] * blocks.strides[i] for i in (0, 1)]
    down, across = (slice(early[i], early[i] + blocks.counts[i]) for i in (0, 1))
    pixels = conv2d(gradient, taps, None, blocks.strides, padding)[:, :, down, across]
    return blocks.images(pixels.permute(0, 2, 3, 1), *size).permute(0, 3, 1, 2)
