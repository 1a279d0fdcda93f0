"""Random numbers that are the same on every backend.

A number is a hash of (seed, counter, example, position): nothing is drawn from a framework's own generator, so the
same key gives the same bits on torch, JAX and TensorFlow, whatever the batch size and the order of the examples.
All arithmetic is on int32, which wraps around identically everywhere and compiles on every device.

The hash is the 32-bit finaliser "lowbias32" (C. Wellons, Hash Function Prospector, 2018), applied once for each word
of the key. It is meant for random starts and augmentation, not for cryptography.
"""

import math

from keras import ops

from kbl.typing import Tensor

# lowbias32's multipliers 0x7FEB352D and 0x846CA68B as int32.
_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - 2**32


def _shift_right(word: Tensor, places: int) -> Tensor:
    """Shift int32 right without copying its sign."""
    places_ = ops.convert_to_tensor(places, dtype="int32")  # PyTorch would make one of a number, each time
    return ops.bitwise_and(ops.right_shift(word, places_), (1 << (32 - places)) - 1)


def _mix(word: Tensor) -> Tensor:
    """Mix the bits of int32 words of any shape (lowbias32)."""
    word = ops.bitwise_xor(word, _shift_right(word, 16))
    word = ops.multiply(word, _FIRST)
    word = ops.bitwise_xor(word, _shift_right(word, 15))
    word = ops.multiply(word, _SECOND)
    return ops.bitwise_xor(word, _shift_right(word, 16))


def key(*words: int | Tensor) -> Tensor:
    """Fold seeds and counters into one int32 key.

    Args:
        *words: Python integers, int32 scalars, or (batch,) int32, for example ``(seed, step)``. Their order matters.

    Returns:
        An int32 scalar; (batch,) where a word was.
    """
    folded = ops.convert_to_tensor(0x3C6EF372, dtype="int32")
    for word in words:
        if isinstance(word, int):
            word = (word + 2**31) % 2**32 - 2**31
        word = ops.cast(ops.convert_to_tensor(word, dtype="int32"), "int32")
        folded = _mix(ops.bitwise_xor(ops.add(ops.multiply(folded, 31), 0x1E3779B9), word))
    return folded


def uniform(key: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw numbers uniform in [0, 1), a multiple of 2⁻²⁴ each.

    Args:
        key: from `key`, an int32 scalar or (batch,).
        index: (batch,) int32, the identity of each example: its numbers depend on nothing else.
        shape: shape of one example.

    Returns:
        (batch, *shape) float32, equal to the last bit on every backend.
    """
    size = math.prod(shape)
    position = ops.arange(size, dtype="int32")
    example = _mix(ops.bitwise_xor(ops.cast(index, "int32"), key))
    bits = _mix(ops.bitwise_xor(_mix(ops.expand_dims(position, 0)), ops.expand_dims(example, 1)))
    fraction = ops.cast(_shift_right(bits, 8), "float32") * 2.0**-24
    return ops.reshape(fraction, (-1, *shape))


def normal(key: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers by the Box-Muller transform.

    Args:
        key: from `key`, an int32 scalar or (batch,).
        index: (batch,) int32, the identity of each example.
        shape: shape of one example.

    Returns:
        (batch, *shape) float32, equal on every backend up to the rounding of log, sqrt and cos.
    """
    pair = uniform(key, index, (2, *shape))
    radius = ops.sqrt(-2.0 * ops.log(1.0 - pair[:, 0]))
    return radius * ops.cos((2.0 * math.pi) * pair[:, 1])
