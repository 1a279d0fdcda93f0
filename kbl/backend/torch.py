"""PyTorch: eager, as lean as a loop written by hand."""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, pad

from kbl.backend.parts import fixed, leaves, random_states
from kbl.backend.recording import Recorded
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
        layer.module for layer in leaves(network) if isinstance(layer, keras.layers.TorchModuleWrapper)
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

    run = Recorded(network, lambda *arrays: kernel(forward, *arrays))

    def call(*arrays: Any) -> Any:
        with torch.no_grad(), _frozen(alive):
            return run(alive, *keras.tree.map_structure(_to_tensor, arrays))

    return call


def repeated(network: Network, step: Callable[..., Any]) -> Callable[..., Any]:
    """Take the steps one by one from Python; a look at what is done would make a GPU wait."""
    one = compiled(network, step)

    def run(constants: Any, state: Any, i: Any, stop: Any) -> Any:
        i, state = int(i), keras.tree.map_structure(_to_tensor, state)
        while i < stop and (state["done"].is_cuda or not bool(state["done"].all())):
            state = {**state, **one(constants, state, np.int32(i))}
            i += 1
        return i, state

    return run


# network -> {identity: a step that is taken inside a training step}; goes with the network.
_INSIDE: "weakref.WeakKeyDictionary[Network, dict[Any, Recorded]]" = weakref.WeakKeyDictionary()


def repeated_inside(
    forward: Any, identity: Any, step: Callable[..., Any], count: int, x: Tensor, constants: tuple[Any, ...]
) -> Tensor:
    """Take a step ``x = step(forward, x, *constants)`` so many times, recorded where `forward` names its network.

    A `forward` of a user's own may do anything, so it is called as it is.
    """
    network = getattr(forward, "network", None)
    if network is None or type(forward).__module__.partition(".")[0] != "kbl":
        for _ in range(count):
            x = step(forward, x, *constants)
        return x
    known = _INSIDE.setdefault(network, {})
    identity = (identity, type(forward), forward.training)
    if identity not in known:
        loose = dataclasses.replace(forward, network=weakref.proxy(network))
        known[identity] = Recorded(network, lambda x, *constants: step(loose, x, *constants))
    x, constants = keras.tree.map_structure(_to_tensor, (x, constants))
    for _ in range(count):
        x = known[identity](network, x, *constants)
    return x


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
    """Let layers on channels-last images read them where they lie: convolution, max-pooling, batch normalization.

    Keras copies each channels-last tensor to channels first and back around these layers, adds a bias by a pass of its
    own and normalises by several. A permuted view is what PyTorch calls the channels-last memory format: its kernels
    read it as it is, and do each layer in one pass. Weights, results and what is saved stay the same.
    """
    for layer in leaves(network):
        if type(layer) is keras.layers.BatchNormalization:
            if not layer.renorm and not layer.synchronized:
                layer.call = _batch_normalization(layer)
        elif getattr(layer, "data_format", None) != "channels_last":
            continue
        elif type(layer) is keras.layers.Conv2D:
            layer.call = _convolution(layer)
        elif type(layer) is keras.layers.MaxPooling2D and layer.padding == "valid":
            layer.call = _max_pooling(layer)
        elif type(layer) is keras.layers.AveragePooling2D and tuple(layer.pool_size) == (1, 1):
            layer.call = _every_so_many(layer)


def _convolution(layer: Any) -> Callable[[Tensor], Tensor]:
    strides, dilation, kernel_size = layer.strides, layer.dilation_rate, layer.kernel_size
    groups, same = layer.groups, layer.padding == "same"

    def convolution(inputs: Tensor) -> Tensor:
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
        kernel = keras.ops.convert_to_tensor(layer.kernel).permute(3, 2, 0, 1)
        bias = keras.ops.convert_to_tensor(layer.bias) if layer.use_bias else None
        outputs = conv2d(images, kernel, bias, strides, padding, dilation, groups).permute(0, 2, 3, 1)
        return outputs if layer.activation is None else layer.activation(outputs)

    return convolution


def _batch_normalization(layer: Any) -> Callable[..., Tensor]:
    plain = layer.call

    def batch_normalization(inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        if mask is not None or layer.axis not in (-1, inputs.ndim - 1) or inputs.dtype != torch.float32:
            return plain(inputs, training=training, mask=mask)
        gamma = keras.ops.convert_to_tensor(layer.gamma) if layer.scale else None
        beta = keras.ops.convert_to_tensor(layer.beta) if layer.center else None
        mean, variance = map(keras.ops.convert_to_tensor, (layer.moving_mean, layer.moving_variance))
        channels_first = inputs.movedim(-1, 1)
        if not (training and layer.trainable):
            return batch_norm(channels_first, mean, variance, gamma, beta, eps=layer.epsilon).movedim(1, -1)
        outputs, batch_mean, batch_scale = torch.native_batch_norm(
            channels_first, gamma, beta, None, None, True, 0.0, layer.epsilon
        )
        batch_mean, batch_variance = batch_mean.detach(), batch_scale.detach() ** -2 - layer.epsilon
        layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1.0 - layer.momentum))
        layer.moving_variance.assign(variance * layer.momentum + batch_variance * (1.0 - layer.momentum))
        return outputs.movedim(1, -1)

    return batch_normalization


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _max_pooling(layer: Any) -> Callable[[Tensor], Tensor]:
    pool_size, strides = layer.pool_size, layer.strides

    def max_pooling(inputs: Tensor) -> Tensor:
        return max_pool2d(inputs.permute(0, 3, 1, 2), pool_size, strides).permute(0, 2, 3, 1)

    return max_pooling


def _every_so_many(layer: Any) -> Callable[[Tensor], Tensor]:
    down, across = layer.strides
    return lambda inputs: inputs[:, ::down, ::across]


def allow_tf32(allowed: bool) -> None:
    """Set what matrix products and cuDNN's convolutions may use."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def devices() -> list[str]:
    """Names of PyTorch's devices."""
    gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*gpus, "cpu"]
