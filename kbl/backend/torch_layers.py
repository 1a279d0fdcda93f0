"""PyTorch: Keras' layers on channels-last images, as fast as PyTorch allows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, pad

from kbl.backend.letting_go import let_go
from kbl.backend.narrow_convolution import NarrowConvolution
from kbl.backend.parts import leaves
from kbl.backend.wide_product import WideProduct
from kbl.typing import Network, Tensor


def prepare(network: Network) -> None:
    """Let layers on channels-last images read them where they lie, and dense layers use the faster product.

    Keras copies each channels-last tensor to channels first and back around these layers, adds a bias by a pass of its
    own and normalises by several. A permuted view is what PyTorch calls the channels-last memory format: its kernels
    read it as it is, and do each layer in one pass. Weights, what is saved and, up to rounding, results stay the same.
    """
    for layer in leaves(network):
        let_go(layer)
        if type(layer) is keras.layers.BatchNormalization:
            if not layer.renorm and not layer.synchronized:
                layer.call = _batch_normalization(layer)
        elif type(layer) is keras.layers.Dense:
            layer.call = _dense(layer)
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
        blocks = None
        if images.requires_grad:
            blocks = NarrowConvolution.blocks(images, kernel, strides, padding, dilation, groups)
        if blocks is not None:
            outputs = NarrowConvolution.apply(images, kernel, bias, strides, padding, blocks)
        else:
            outputs = conv2d(images, kernel, bias, strides, padding, dilation, groups)
        outputs = outputs.permute(0, 2, 3, 1)
        return outputs if layer.activation is None else layer.activation(outputs)

    return convolution


def _batch_normalization(layer: Any) -> Callable[..., Tensor]:
    plain = partial(type(layer).call, layer)

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


def _dense(layer: Any) -> Callable[..., Tensor]:
    plain = partial(type(layer).call, layer)

    def dense(inputs: Tensor, training: bool | None = None) -> Tensor:
        kernel = keras.ops.convert_to_tensor(layer.kernel)
        if not WideProduct.helps(inputs, kernel):
            return plain(inputs, training=training)
        bias = keras.ops.convert_to_tensor(layer.bias) if layer.use_bias else None
        outputs = WideProduct.apply(inputs, kernel, bias)
        return outputs if layer.activation is None else layer.activation(outputs)

    return dense


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
