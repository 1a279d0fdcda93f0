"""A network as a chain of affine maps and ReLUs, each affine map with its transpose."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import keras
from keras import layers, ops

from kbl.backend.parts import call_behind
from kbl.layers import GMMHead
from kbl.typing import Network, Tensor

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """``z -> W z + b`` of one image.

    Args:
        transpose: (N, *shape of the output) to (N, *shape of the input), ``Wᵀ a`` of each row a.
        bias: b, a number for each channel of the output; None for zero.
        shape: of the output, without the batch.
    """

    transpose: Callable[[Tensor], Tensor]
    bias: Tensor | None
    shape: Shape

    def times_bias(self, a: Tensor) -> Tensor:
        """Return ``a · b`` of each row, (N,)."""
        sums = ops.sum(a, axis=tuple(range(1, len(self.shape)))) if len(self.shape) > 1 else a
        return ops.matmul(sums, self.bias)


Chain: TypeAlias = list[Affine | Literal["relu"]]


def chain(network: Network) -> Chain:
    """Take a network apart.

    Convolutions, dense layers, ReLU, Flatten, Reshape, Rescaling, batch normalization in inference mode and dropout
    are known, one after the other, with a `Dense` or a `kbl.layers.GMMHead` of identity covariance at the end. Of the
    latter ``-½‖h‖²`` is left out: it is the same for all classes, and what is left is affine in h.

    Args:
        network: a built Sequential or Functional Keras model.

    Raises:
        ValueError: the network branches, or has a layer of another kind.
    """
    parts: Chain = []
    shape: Shape = tuple(network.inputs[0].shape[1:]) if getattr(network, "inputs", None) else ()
    for layer in _in_line(network):
        for part in _parts(layer, shape):
            if isinstance(part, Affine):
                parts.append(part)
                shape = part.shape
            elif (
                parts and parts[-1] != "relu"
            ):  # the ReLU of pixels, or of what comes from one, changes nothing
                parts.append(part)
    if not parts or parts[-1] == "relu":
        raise ValueError(f"a certificate needs a network that ends with logits. Received: {network.name}")
    return parts


def _in_line(network: Network) -> list[Any]:
    """Return the layers in order, those of nested models too."""
    if len(getattr(network, "inputs", None) or ()) != 1:
        raise ValueError(
            f"a certificate needs a Sequential or Functional network of one input. Received: {network}"
        )
    found: list[Any] = []
    for layer in network.layers if isinstance(network, keras.Sequential) else _backwards(network)[::-1]:
        found += _in_line(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _backwards(network: Network) -> list[Any]:
    """Return a Functional model's layers from its output to its input; layers may have been called elsewhere, too."""
    found: list[Any] = []
    tensor = network.outputs[0]
    while tensor is not network.inputs[0]:
        layer, given = call_behind(tensor)
        if len(given) != 1:
            raise ValueError(
                f"a certificate needs layers one after the other. Received: {network.name}, which branches at "
                f"layer {layer.name!r}"
            )
        found.append(layer)
        tensor = given[0]
    return found


def _parts(layer: Any, shape: Shape) -> Chain:
    if _is_relu(layer):
        return ["relu"]
    if isinstance(layer, layers.Dropout):
        return []
    if isinstance(layer, layers.Activation):
        return _activation(layer)
    if isinstance(layer, layers.Flatten | layers.Reshape) and _is_channels_last(layer):
        return [Affine(lambda a: ops.reshape(a, (-1, *shape)), None, _output_shape(layer, shape))]
    if type(layer) is layers.Dense and len(shape) == 1:
        return [_dense(layer.kernel, layer.bias), *_activation(layer)]
    if isinstance(layer, GMMHead) and layer.covariance == "identity":
        means = _float32(layer.means)
        return [_dense(ops.transpose(means), -0.5 * ops.sum(ops.square(means), axis=-1))]
    if type(layer) is layers.Conv2D and _is_plain(layer):
        return [_convolution(layer, shape), *_activation(layer)]
    if isinstance(layer, layers.Rescaling):
        scale, offset = _float32(layer.scale), _float32(layer.offset)
        return [Affine(lambda a: a * scale, ops.broadcast_to(offset, shape[-1:]), shape)]
    if isinstance(layer, layers.BatchNormalization) and layer.axis in (-1, len(shape)):
        return [_normalisation(layer, shape)]
    raise ValueError(
        f"a certificate needs convolutions, dense layers and ReLU. Received: layer {layer.name!r}, "
        f"a {type(layer).__name__} that is not supported"
    )


def _is_plain(layer: Any) -> bool:
    """Tell whether a convolution is channels last and neither grouped nor dilated."""
    return _is_channels_last(layer) and layer.groups == 1 and layer.dilation_rate == (1, 1)


def _is_channels_last(layer: Any) -> bool:
    """Tell whether a layer takes pixels in the order in which they lie; where there is no choice it does."""
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def _activation(layer: Any) -> Chain:
    if layer.activation in (None, keras.activations.linear):
        return []
    if _is_relu(layer.activation):
        return ["relu"]
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)  # a function, or a layer
    raise ValueError(
        f"a certificate needs ReLU. Received: layer {layer.name!r} with activation {name} that is not supported"
    )


def _is_relu(activation: Any) -> bool:
    """Tell whether a layer or a function is ReLU, neither leaky nor capped."""
    if isinstance(activation, layers.ReLU):
        return activation.max_value is None and not (activation.negative_slope or activation.threshold)
    return activation is keras.activations.relu


def _dense(kernel: Tensor, bias: Tensor | None) -> Affine:
    kernel = _float32(kernel)
    return Affine(
        lambda a: ops.matmul(a, ops.transpose(kernel)),
        None if bias is None else _float32(bias),
        (int(kernel.shape[1]),),
    )


def _normalisation(layer: Any, shape: Shape) -> Affine:
    scale = ops.rsqrt(_float32(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * _float32(layer.gamma)
    bias = -_float32(layer.moving_mean) * scale
    if layer.center:
        bias = bias + _float32(layer.beta)
    return Affine(lambda a: a * scale, bias, shape)


def _convolution(layer: Any, shape: Shape) -> Affine:
    """Pad "same" by hand, since Keras' transposed convolution knows only one of the shapes that lead to its input."""
    height, width = shape[:2]
    output = _output_shape(layer, shape)
    kernel, strides = _float32(layer.kernel), layer.strides
    spans = [
        (n - 1) * stride + size for n, stride, size in zip(output, strides, layer.kernel_size, strict=False)
    ]
    before = [0, 0]
    if layer.padding == "same":
        before = [max(span - size, 0) // 2 for span, size in zip(spans, shape, strict=False)]
    elif layer.padding != "valid":
        raise ValueError(f'a certificate needs padding "same" or "valid". Received: layer {layer.name!r}')
    after = [max(b + size - span, 0) for b, size, span in zip(before, shape, spans, strict=False)]

    def transpose(a: Tensor) -> Tensor:
        images = ops.conv_transpose(a, kernel, strides, "valid", data_format="channels_last")
        images = ops.pad(images, ((0, 0), (0, after[0]), (0, after[1]), (0, 0)))
        return images[:, before[0] : before[0] + height, before[1] : before[1] + width]

    return Affine(transpose, None if layer.bias is None else _float32(layer.bias), output)


def _output_shape(layer: Any, shape: Shape) -> Shape:
    if isinstance(layer, layers.Flatten):
        return (math.prod(shape),)
    return tuple(layer.compute_output_shape((None, *shape))[1:])


def _float32(value: Any) -> Tensor:
    return ops.cast(ops.convert_to_tensor(value), "float32")
