"""JAX on a CPU: Keras' layers with gradients that XLA computes fast there, in loops as well."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import lax

from kbl.backend.parts import leaves
from kbl.backend.pixel_blocks import pixel_blocks
from kbl.typing import Network, Tensor

_LAYOUT = ("NHWC", "HWIO", "NHWC")


@contextmanager
def fast_gradients(*networks: Network) -> Iterator[None]:
    """Give convolutions and max-pooling gradients of their own while a function is traced on a CPU.

    XLA runs a convolution on a CPU fast where images lie channels last and kernels (H, W, in, out). A gradient in the
    images has the kernel's last two axes the other way round. Outside of loops XLA turns them; inside it does not, and
    takes up to 18 times as long. The gradient of max-pooling it scatters pixel by pixel, wherever that is.

    What is computed stays the same, and the layers are as they were in the end, so that `jax.jvp`, which does not know
    such gradients, works on them as ever.
    """
    own: list[tuple[Any, str, Callable[..., Tensor]]] = []
    if jax.default_backend() == "cpu":
        for layer in (layer for network in networks for layer in leaves(network)):
            if type(layer) is keras.layers.Conv2D and layer.groups == 1:
                own.append((layer, "convolution_op", _channels_last(layer, _convolution(layer))))
            elif type(layer) is keras.layers.MaxPooling2D and _is_apart(layer):
                own.append((layer, "call", _channels_last(layer, partial(_pooled, layer.pool_size))))
    own = [(layer, name, function) for layer, name, function in own if name not in vars(layer)]
    for layer, name, function in own:
        vars(layer)[name] = function
    try:
        yield
    finally:
        for layer, name, _ in own:
            del vars(layer)[name]


def _channels_last(layer: Any, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if layer.data_format == "channels_last":
        return function
    return lambda x, *kernel: jnp.moveaxis(function(jnp.moveaxis(x, 1, -1), *kernel), -1, 1)


def _convolution(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    shape = tuple(layer.strides), layer.padding.upper(), tuple(layer.dilation_rate)

    def convolution(x: Tensor, kernel: Tensor) -> Tensor:
        kernel = keras.ops.convert_to_tensor(kernel)
        return _convolved(*shape, keras.ops.convert_to_tensor(x, kernel.dtype), kernel)

    return convolution


def _plainly_convolved(strides: Any, padding: Any, dilation: Any, x: Tensor, kernel: Tensor) -> Tensor:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT
    )


def _convolved_forward(*given: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return _plainly_convolved(*given), given[-2:]


def _convolved_backward(
    strides: Any, padding: Any, dilation: Any, given: tuple[Tensor, Tensor], slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Return JAX' own gradient in the kernel; that in the images by laying the slopes under the kernel turned round.

    Of images of few channels as blocks of pixels.
    """
    x, kernel = given
    plain = partial(_plainly_convolved, strides, padding, dilation, x)
    (in_kernel,) = jax.linear_transpose(plain, kernel)(slope)
    size, outputs = x.shape[1:3], slope.shape[1:3]
    reach = [(kernel.shape[i] - 1) * dilation[i] for i in (0, 1)]
    pads = lax.padtype_to_pads(size, [1 + each for each in reach], strides, padding)
    before = tuple(low for low, _ in pads)
    blocks = pixel_blocks(size, outputs, kernel.shape, strides, before) if dilation == (1, 1) else None
    if blocks is not None:
        pixels = _plainly_convolved(blocks.strides, blocks.pads, (1, 1), slope, blocks.kernel(kernel))
        return blocks.images(pixels, *size), in_kernel
    in_images = lax.conv_general_dilated(
        slope,
        jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3),
        (1, 1),
        [(reach[i] - before[i], size[i] - 1 + before[i] - (outputs[i] - 1) * strides[i]) for i in (0, 1)],
        lhs_dilation=strides,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
    )
    return in_images, in_kernel


_convolved = jax.custom_vjp(_plainly_convolved, nondiff_argnums=(0, 1, 2))
_convolved.defvjp(_convolved_forward, _convolved_backward)


def _is_apart(layer: Any) -> bool:
    return layer.padding == "valid" and tuple(layer.strides) == tuple(layer.pool_size)


def _plainly_pooled(size: tuple[int, int], x: Tensor) -> Tensor:
    window = (1, *size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _pooled_forward(size: tuple[int, int], x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    greatest = _plainly_pooled(size, x)
    return greatest, (x, greatest)


def _pooled_backward(size: tuple[int, int], given: tuple[Tensor, Tensor], slope: Tensor) -> tuple[Tensor]:
    """Give each slope to the first pixel of its window that is no less than the greatest."""
    (down, across), (x, greatest) = size, given
    inside = x[:, : down * slope.shape[1], : across * slope.shape[2]]
    last = down * across - 1
    first = jnp.full(slope.shape, last)
    for place in reversed(range(last)):
        row, column = divmod(place, across)
        first = jnp.where(inside[:, row::down, column::across] < greatest, first, place)
    places = jnp.arange(down * across).reshape(1, 1, down, 1, across, 1)
    spread = jnp.where(_in_windows(first) == places, _in_windows(slope), 0).reshape(inside.shape)
    missing = [(0, whole - part) for whole, part in zip(x.shape, inside.shape, strict=True)]
    return (jnp.pad(spread, missing),)


def _in_windows(x: Tensor) -> Tensor:
    return x[:, :, None, :, None]


_pooled = jax.custom_vjp(_plainly_pooled, nondiff_argnums=(0,))
_pooled.defvjp(_pooled_forward, _pooled_backward)
