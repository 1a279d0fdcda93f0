"""1,797 real handwritten digits of 8×8 pixels, embedded (DIGITS.md: source, licence, split)."""

from pathlib import Path

import numpy as np

from kbl.data.dataset import Dataset

_FILE = Path(__file__).with_name("digits.npz")


def load() -> Dataset:
    """Load the digits: 1,437 training and 360 test images of shape (8, 8, 1), ten classes.

    References:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0).
    """
    with np.load(_FILE, allow_pickle=False) as file:
        return Dataset(
            name="digits",
            x_train=file["x_train"][..., np.newaxis].astype(np.float32) / 16,
            y_train=file["y_train"].astype(np.int32),
            x_test=file["x_test"][..., np.newaxis].astype(np.float32) / 16,
            y_test=file["y_test"].astype(np.int32),
            class_names=tuple(str(digit) for digit in range(10)),
        )


def locate() -> Path:
    """Return the embedded file."""
    return _FILE
