"""The gradient of a convolution in images of few channels, beside PyTorch's own in double precision."""

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "torch":
    pytest.skip("it is PyTorch's", allow_module_level=True)

import torch
from torch.nn.functional import conv2d

from kbl import backend
from kbl.backend.narrow_convolution import NarrowConvolution

CASES = [  # height, width, channels, filters, kernel, strides, padding
    (28, 28, 1, 32, (5, 5), (1, 1), (2, 2)),
    (28, 28, 1, 16, (4, 4), (2, 2), (1, 1)),
    (9, 7, 1, 24, (3, 5), (2, 1), (1, 0)),
    (8, 8, 1, 16, (3, 3), (1, 1), (0, 0)),
    (11, 11, 1, 16, (3, 3), (4, 4), (0, 0)),  # some pixels are seen by no output
    (9, 6, 1, 16, (3, 4), (1, 1), (0, 1)),  # the slopes are padded more after than before
    (6, 6, 2, 18, (3, 3), (1, 1), (1, 1)),
    (7, 7, 1, 64, (7, 7), (1, 1), (3, 3)),
]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case, biased: bool) -> None:
    height, width, channels, filters, kernel_size, strides, padding = case
    generator = torch.Generator().manual_seed(0)
    x, kernel, bias = (
        torch.randn(shape, generator=generator)
        for shape in ((3, channels, height, width), (filters, channels, *kernel_size), (filters,))
    )
    blocks = NarrowConvolution.blocks(x, kernel, strides, padding, (1, 1), 1)
    assert blocks is not None
    given = [x, kernel, bias] if biased else [x, kernel]

    def gradients(convolution, dtype) -> list[np.ndarray]:
        inputs = [tensor.to(dtype).requires_grad_() for tensor in given]
        outputs = convolution(*inputs, *([] if biased else [None]), strides, padding)
        first = torch.autograd.grad(outputs.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)
        return [outputs.detach().numpy(), *(each.detach().numpy() for each in (*first, *second))]

    found = gradients(lambda *given: NarrowConvolution.apply(*given, blocks), torch.float32)
    for one, other in zip(found, gradients(conv2d, torch.float64), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_it_is_taken_where_it_helps(monkeypatch) -> None:
    """On the first layer of a network of gray images, for gradients in the image, and nowhere else."""
    made = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same"), layers.Conv2D(16, 3)]
    )
    backend.prepare(made)
    seen = []
    apply = NarrowConvolution.apply
    monkeypatch.setattr(
        NarrowConvolution, "apply", lambda *given: seen.append(given[1].shape) or apply(*given)
    )
    x = torch.rand(2, 8, 8, 1)
    made(x)
    assert not seen
    backend.value_and_grad(lambda z: (made(z).sum(), ()), x)
    assert seen == [(16, 1, 3, 3)]


@pytest.mark.parametrize(
    "change", [{"groups": 2}, {"dilation": (2, 2)}, {"filters": 4}, {"dtype": torch.float64}], ids=str
)
def test_where_it_does_not_help(change) -> None:
    x = torch.rand(1, 1, 8, 8, dtype=change.get("dtype", torch.float32))
    kernel = torch.rand(change.get("filters", 16), 1, 3, 3)
    options = change.get("dilation", (1, 1)), change.get("groups", 1)
    blocks = NarrowConvolution.blocks(x, kernel, (1, 1), (1, 1), *options)
    assert blocks is None
    assert NarrowConvolution.blocks(x.float(), torch.rand(16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1) is not None
