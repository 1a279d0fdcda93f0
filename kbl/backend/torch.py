"""PyTorch: eager, as lean as a loop written by hand."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import torch
from torch.nn.functional import conv2d, max_pool2d, pad

from kbl.backend.draws import fixed, random_states
from kbl.typing import Network, Tensor

COMPILES_SHAPES = False


def value_and_grad(fn: Callable[[Any], tuple[Tensor, Any]], x: Any) -> tuple[Any, Any]:
    """Return ``(auxiliary, gradient)`` of ``fn: x -> (scalar, auxiliary)`` at x, a tensor or a list of tensors."""
    with torch.enable_grad():
        x = keras.tree.map_structure(lambda tensor: tensor.detach().requires_grad_(), x)
        value, auxiliary = fn(x)
        inputs = keras.tree.flatten(x)
        found = (
            torch.autograd.grad(value, inputs, allow_unused=True)
            if value.requires_grad
            else (None,) * len(inputs)
        )
    gradients = [
        torch.zeros_like(tensor) if one is None else one for one, tensor in zip(found, inputs, strict=True)
    ]
    auxiliary = keras.tree.map_structure(lambda tensor: tensor.detach(), auxiliary)
    return auxiliary, keras.tree.pack_sequence_as(x, gradients)


@contextmanager
def _frozen(network: Network) -> Iterator[None]:
    """Keep autograd from saving what only weight gradients need, and each wrapped module's mode as it is."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    wrapped = [
        layer.module for layer in _leaves(network) if isinstance(layer, keras.layers.TorchModuleWrapper)
    ]
    modes = [(module, module.training) for whole in wrapped for module in whole.modules()]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def compiled(network: Network, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``kernel(forward, *arrays)`` with frozen weights and no graph but those that it asks for."""
    alive = weakref.proxy(network)
    prepare(network)
    states = random_states(network)

    def forward(x: Tensor, draw: Tensor = 0) -> Tensor:
        with fixed(states, draw):
            return alive(x, training=False)

    def call(*arrays: Any) -> Any:
        with torch.no_grad(), _frozen(alive):
            return kernel(forward, *keras.tree.map_structure(_to_tensor, arrays))

    return call


def _to_tensor(value: Any) -> Any:
    """Leave Python's numbers: as tensors they would cost time and save nothing."""
    return value if isinstance(value, int | float) else keras.ops.convert_to_tensor(value)


def with_adversaries(model: Any, step: Callable[..., Any], training: bool, *data: Any) -> Any:
    """Craft with frozen weights, then step; a perturbation of the weights holds for the step alone."""
    with torch.no_grad(), _frozen(model):
        attacked = model.attacked(*data, training)
        shift = model.perturbation(attacked) if training else None
    if shift is None:
        return step(attacked)
    weights = [variable.value for variable in model.trainable_variables]
    with torch.no_grad():
        torch._foreach_add_(weights, shift)
    logs = step(attacked)
    with torch.no_grad():
        torch._foreach_sub_(weights, shift)
    return logs


def prepare(network: Network) -> None:
    """Let 2-D convolutions and max-pooling read channels-last images where they lie.

    Keras copies each channels-last tensor to channels first and back around these layers (1.4-1.5 times the time of
    a hand-written loop on a CPU). A permuted view is what PyTorch calls the channels-last memory format: its kernels
    read it as it is. Weights, results and what is saved stay the same.
    """
    for layer in _leaves(network):
        if getattr(layer, "data_format", None) != "channels_last":
            continue
        if type(layer) is keras.layers.Conv2D:
            layer.convolution_op = _convolution(layer)
        elif type(layer) is keras.layers.MaxPooling2D and layer.padding == "valid":
            layer.call = _max_pooling(layer)


def _leaves(layer: Any) -> Iterator[Any]:
    for inner in getattr(layer, "layers", ()):
        yield from _leaves(inner)
    yield layer


def _convolution(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    strides, dilation, kernel_size = layer.strides, layer.dilation_rate, layer.kernel_size
    groups, same = layer.groups, layer.padding == "same"

    def convolution(inputs: Tensor, kernel: Tensor) -> Tensor:
        images = inputs.permute(0, 3, 1, 2)
        padding = (0, 0)
        if same:
            before, after = zip(
                *map(_same_padding, images.shape[2:], kernel_size, strides, dilation), strict=True
            )
            if before == after:
                padding = before
            else:
                images = pad(images, (before[1], after[1], before[0], after[0]))
        kernel = keras.ops.convert_to_tensor(kernel).permute(3, 2, 0, 1)
        return conv2d(images, kernel, None, strides, padding, dilation, groups).permute(0, 2, 3, 1)

    return convolution


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _max_pooling(layer: Any) -> Callable[[Tensor], Tensor]:
    pool_size, strides = layer.pool_size, layer.strides

    def max_pooling(inputs: Tensor) -> Tensor:
        return max_pool2d(inputs.permute(0, 3, 1, 2), pool_size, strides).permute(0, 2, 3, 1)

    return max_pooling


def devices() -> list[str]:
    """Names of PyTorch's devices."""
    gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*gpus, "cpu"]
