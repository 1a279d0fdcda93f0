"""A dense layer's product by oneDNN, beside PyTorch's own in double precision."""

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "torch":
    pytest.skip("it is PyTorch's", allow_module_level=True)

import torch

from kbl import backend
from kbl.backend.wide_product import WideProduct


@pytest.fixture
def dense():
    """A network of one layer that is wide enough, prepared."""
    made = keras.Sequential([keras.Input((256,)), layers.Dense(128, activation="relu")])
    made.layers[0].bias.assign(np.linspace(-1, 1, 128))
    backend.prepare(made)
    return made


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the kernels that it is given."""
    seen, apply = [], WideProduct.apply
    monkeypatch.setattr(WideProduct, "apply", lambda *given: seen.append(given[1].shape) or apply(*given))
    return seen


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_gradients(batch: int, biased: bool) -> None:
    """The result, its gradient in the inputs, and the gradient of that one's square."""
    generator = torch.Generator().manual_seed(0)
    x, kernel, bias = (
        torch.randn(shape, generator=generator) for shape in ((batch, 256), (256, 128), (128,))
    )
    assert WideProduct.helps(x, kernel)

    def gradients(product, dtype) -> list[np.ndarray]:
        inputs = x.to(dtype).requires_grad_()
        outputs = product(inputs, kernel.to(dtype), bias.to(dtype) if biased else None)
        (first,) = torch.autograd.grad(outputs.sin().sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), inputs)
        return [each.detach().numpy() for each in (outputs, first, second)]

    def plain(inputs, kernel, bias):
        return inputs @ kernel + (0.0 if bias is None else bias)

    found = gradients(WideProduct.apply, torch.float32)
    for one, other in zip(found, gradients(plain, torch.float64), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_a_layer_uses_it(dense, calls) -> None:
    """For its outputs without gradients, and with one in the inputs while weights are frozen."""
    x = torch.randn(5, 256)
    (layer,) = dense.layers
    with torch.no_grad():
        expected = torch.relu(x @ layer.kernel.value + layer.bias.value)
        np.testing.assert_allclose(dense(x), expected, rtol=1e-4, atol=1e-5)
    assert calls == [(256, 128)]
    for parameter in dense.parameters():
        parameter.requires_grad_(False)
    _, gradient = backend.value_and_grad(lambda z: (dense(z).sum(), ()), x)
    np.testing.assert_allclose(
        gradient, (expected > 0).float() @ layer.kernel.value.t(), rtol=1e-4, atol=1e-5
    )
    assert calls == [(256, 128), (256, 128), (128, 256)]


def test_training_does_not_use_it(dense, calls) -> None:
    x = torch.randn(5, 256)
    dense(x).sum().backward()
    assert not calls
    (layer,) = dense.layers
    np.testing.assert_allclose(layer.bias.value.grad, (dense(x) > 0).sum(0).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "change", [{"inputs": (2, 3, 256)}, {"kernel": (256, 64)}, {"dtype": torch.bfloat16}], ids=str
)
def test_where_it_does_not_help(change) -> None:
    dtype = change.get("dtype", torch.float32)
    inputs = torch.zeros(change.get("inputs", (2, 256)), dtype=dtype)
    assert not WideProduct.helps(inputs, torch.zeros(change.get("kernel", (256, 128)), dtype=dtype))


def test_without_onednn(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not WideProduct.helps(torch.zeros(2, 256), torch.zeros(256, 128))
