"""PyTorch: a convolution of images of one channel, or few, whose gradient in the image is fast on a CPU."""

from functools import reduce
from typing import Any

import torch
from torch.nn.functional import conv2d, pad, pixel_shuffle

from kbl.typing import Tensor


class NarrowConvolution(torch.autograd.Function):
    """A convolution whose gradient in the image is a product of matrices and a sum of shifted images.

    oneDNN's kernel for it fills vectors with input channels, so that one channel leaves most of each empty: on the
    first layer of the MNIST convnet it takes five times as long as this one, a fifth of an attack's step.
    """

    @staticmethod
    def helps(images: Tensor, kernel: Tensor, strides: Any, dilation: Any, groups: int) -> bool:
        """Tell whether it is at hand and its products take no more memory than the gradient that comes in."""
        filters, channels, *sides = kernel.shape
        products = channels * _whole(sides[0], strides[0]) * _whole(sides[1], strides[1])
        return (
            groups == 1
            and strides[0] == strides[1]
            and tuple(dilation) == (1, 1)
            and products <= filters
            and images.device.type == "cpu"
            and images.dtype == torch.float32
        )

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, kernel: Tensor, bias: Tensor | None, strides: Any, padding: Any
    ) -> Tensor:
        """Return `torch.nn.functional.conv2d` of the arguments."""
        ctx.save_for_backward(images, kernel)
        ctx.strides, ctx.padding, ctx.biased = strides, padding, bias is not None
        return conv2d(images, kernel, bias, strides, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradients in images, kernel and bias."""
        images, kernel = ctx.saved_tensors
        (gradient,) = gradients
        of_images, of_kernel, of_bias = None, None, None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_in_images(gradient, kernel, images.shape, ctx.strides, ctx.padding)
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
        return of_images, of_kernel, of_bias, None, None


def _gradient_in_images(gradient: Tensor, kernel: Tensor, shape: Any, strides: Any, padding: Any) -> Tensor:
    """Return (batch, C, H, W).

    Pixel p = s q + r of the padded image, 0 ≤ r < s, was seen by the outputs q - m at the kernel's place s m + r, for
    each m: so for each m the products of all outputs with the kernel's places s m + r are shifted by m and added.
    """
    (batch, channels, *size), (filters, _, *sides) = shape, kernel.shape
    (stride, _), (high, wide) = strides, gradient.shape[2:]
    rows, columns = (_whole(side, stride) // stride for side in sides)
    kernel = pad(kernel, (0, columns * stride - sides[1], 0, rows * stride - sides[0]))
    places = kernel.reshape(filters, channels, rows, stride, columns, stride).permute(2, 4, 1, 3, 5, 0)
    places = places.reshape(1, -1, filters).expand(batch, -1, -1)
    outputs = gradient.permute(0, 2, 3, 1).reshape(batch, -1, filters).transpose(1, 2)
    products = torch.bmm(places, outputs).view(batch, rows, columns, -1, high, wide)
    shifted = (
        pad(products[:, row, column], (column, columns - 1 - column, row, rows - 1 - row))
        for row in range(rows)
        for column in range(columns)
    )
    total = pixel_shuffle(reduce(torch.add, shifted), stride)
    # What the padding added goes; what no output saw, because the strides did not reach it, comes back as zeros.
    bottom = size[0] + padding[0] - total.shape[2]
    right = size[1] + padding[1] - total.shape[3]
    return pad(total, (-padding[1], right, -padding[0], bottom))


def _whole(side: int, stride: int) -> int:
    return -(-side // stride) * stride
