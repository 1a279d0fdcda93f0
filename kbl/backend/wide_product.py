"""PyTorch: a dense layer of many weights whose products oneDNN computes on a CPU."""

from typing import Any

import torch

from kbl.typing import Tensor

_WIDE = 1 << 15  # weights; with fewer, oneDNN's preparations take longer than they save
_product: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class WideProduct(torch.autograd.Function):
    """``inputs @ kernel + bias``, and its gradient in the inputs, by oneDNN.

    PyTorch gives products of float32 matrices to MKL, which on processors of other makers leaves half of their vectors
    unused; with 100,000 weights and 128 images oneDNN takes half as long.
    """

    @staticmethod
    def helps(inputs: Tensor, kernel: Tensor) -> bool:
        """Tell whether it is at hand, worth its preparations, and asked for no gradient of weights."""
        return (
            _product is not None
            and inputs.ndim == 2
            and kernel.numel() >= _WIDE
            and inputs.device.type == "cpu"
            and inputs.dtype == kernel.dtype == torch.float32
            and not (kernel.requires_grad and torch.is_grad_enabled())
            and torch.backends.mkldnn.enabled
            and torch.backends.mkldnn.is_available()
        )

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Return (batch, units) of inputs (batch, n), kernel (n, units) and bias (units,)."""
        ctx.save_for_backward(kernel)
        return _product(inputs, kernel.t(), bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return the gradient in the inputs; kernel and bias are asked for none."""
        (kernel,) = ctx.saved_tensors
        return WideProduct.apply(gradients[0], kernel.t(), None), None, None
