"""Convolutions that see only what precedes a pixel."""

from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers, ops

from kbl.typing import Tensor

Kind = Literal["A", "B"]


@keras.saving.register_keras_serializable(package="kbl")
class MaskedConv2D(layers.Conv2D):
    """Convolution whose output at a pixel depends on the pixels before it in raster order alone.

    The channels are in as many groups of equal size as the image has colours, in the order of the colours; a group also
    sees, at the pixel itself, the groups of earlier colours, and with kind "B" its own (van den Oord, Kalchbrenner &
    Kavukcuoglu, arXiv:1601.06759, §3.3 and 3.4).

    Args:
        filters: number of output channels, a multiple of `colours`.
        kernel_size: odd, the same in both directions.
        kind: "A" for the first layer, which must not see the pixel's own colour; "B" for those after it.
        colours: number of channels of the image.
        **kwargs: further arguments of `keras.layers.Conv2D`; stride 1 and padding "same" are its own.

    Input: (batch, H, W, C), C a multiple of `colours`. Output: (batch, H, W, filters).

    Raises:
        ValueError: an argument is not as described, or C is no multiple of `colours`.
    """

    def __init__(self, filters: int, kernel_size: int, kind: Kind, colours: int = 1, **kwargs: Any) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f'kind must be "A" or "B". Received: kind={kind!r}')
        if not isinstance(kernel_size, int) or kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be an odd integer. Received: kernel_size={kernel_size}")
        if colours < 1 or filters % colours:
            raise ValueError(f"filters must be a multiple of colours={colours}. Received: filters={filters}")
        super().__init__(filters, kernel_size, padding="same", data_format="channels_last", **kwargs)
        self.kind = kind
        self.colours = colours

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the kernel and its mask."""
        channels = input_shape[-1]
        if channels is None or channels % self.colours:
            raise ValueError(
                f"the input's channels must be a multiple of colours={self.colours}. Received: {channels}"
            )
        super().build(input_shape)
        middle = self.kernel_size[0] // 2
        mask = np.zeros((*self.kernel_size, channels, self.filters), "float32")
        mask[:middle] = 1.0
        mask[middle, :middle] = 1.0
        given, made = (np.arange(count) * self.colours // count for count in (channels, self.filters))
        sees = given[:, None] < made[None] if self.kind == "A" else given[:, None] <= made[None]
        mask[middle, middle] = sees
        self._mask = mask

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve with what the mask leaves of the kernel."""
        return super().convolution_op(
            inputs, ops.convert_to_tensor(kernel) * ops.cast(self._mask, kernel.dtype)
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()
        for fixed in ("strides", "padding", "data_format", "dilation_rate", "groups"):
            del config[fixed]
        return {**config, "kernel_size": self.kernel_size[0], "kind": self.kind, "colours": self.colours}
