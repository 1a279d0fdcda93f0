"""What TensorFloat-32 costs in accuracy, on a CPU: ``python -m benchmarks.tf32 run precision`` (kbl's own arguments).

Where a recipe says ``training.tf32 = true``, every product of float32 matrices and every convolution, of gradients as
well, takes its factors with 10 bits of mantissa, rounded to the nearest, and sums and stores in float32, which is what
a GPU's tensor cores do. On the torch backend; speed is not what this shows.
"""

import os
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Which arguments of an operation are factors.
_FACTORS: dict[Any, tuple[int, ...]] = {
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
    torch.ops.aten.convolution: (0, 1),
    torch.ops.aten.convolution_backward: (0, 1, 2),
    torch.ops.mkldnn._linear_pointwise: (0, 1),
}


class TensorFloat32(TorchDispatchMode):
    """Products as tensor cores compute them, while kbl allows it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation, its factors rounded if it is a product."""
        if torch.backends.cuda.matmul.allow_tf32:
            places = _FACTORS.get(func.overloadpacket, ())
            args = [rounded(value) if place in places else value for place, value in enumerate(args)]
        return func(*args, **(kwargs or {}))


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """Return a float32 tensor with 10 bits of mantissa, rounded to the nearest, halves away from zero."""
    if tensor.dtype != torch.float32:
        return tensor
    return ((tensor.view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def check() -> None:
    """Assert that products, convolutions and their gradients are what they are to be."""
    bits = [1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -1 - 2**-11, 2.0**-130, 0.0]
    expected = [1 + 2**-10, 1 + 2**-10, 1, -1 - 2**-10, 2.0**-130, 0.0]
    assert rounded(torch.tensor(bits)).tolist() == expected
    a, b = (torch.rand(64, 64, requires_grad=True) for _ in range(2))
    for product in (
        torch.matmul,
        lambda a, b: torch.conv2d(a[..., None, None], b.t()[..., None, None])[..., 0, 0],
    ):
        out = product(a, b)
        slopes = torch.rand(64, 64)
        gradients = torch.autograd.grad(out, (a, b), slopes)
        first, second, third = (rounded(value.detach()).double() for value in (a, b, slopes))
        for found, exact in zip(
            (out, *gradients), (first @ second, third @ second.t(), first.t() @ third), strict=True
        ):
            assert torch.allclose(found.double(), exact, rtol=1e-6, atol=0)
        assert not torch.allclose(out, (a.double() @ b.double()).float(), rtol=1e-6, atol=0)


def main() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    if any(word.partition("=")[0] == "--backend" for word in sys.argv):
        sys.exit("benchmarks.tf32 rounds on the torch backend alone: leave --backend out")
    from kbl.cli import app

    with TensorFloat32():
        torch.backends.cuda.matmul.allow_tf32 = True
        check()
        app()


if __name__ == "__main__":
    main()
