"""MNIST: 70,000 handwritten digits of 28×28 pixels (Y. LeCun, C. Cortes, C. J. C. Burges)."""

import os
from pathlib import Path

from kbl.data import npz
from kbl.data.dataset import Dataset
from kbl.errors import UserError


def _own_file() -> Path | None:
    """Return where $KBL_DATA says that mnist.npz lies, or None when it is not set."""
    folder = os.environ.get("KBL_DATA")
    return Path(folder).expanduser() / "mnist.npz" if folder else None


def _keras_file() -> Path:
    """Return where Keras caches its download."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    return Path(home).expanduser() / "datasets" / "mnist.npz"


def locate() -> Path | None:
    """Return the file that `load` would read, or None when it would have to download one."""
    for path in (_own_file(), _keras_file()):
        if path is not None and path.is_file():
            return path
    return None


def load() -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of shape (28, 28, 1), ten classes.

    Read from `$KBL_DATA/mnist.npz`, else from Keras' cache, else downloaded by Keras.

    Raises:
        UserError: there is no file and no download, or the file is not what `npz.load` takes.
    """
    own = _own_file()
    if own is not None and own.is_file():
        return npz.load(own, name="mnist")
    from keras.datasets import mnist

    try:
        (x_train, y_train), (x_test, y_test) = mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        tried = f"{own} (from KBL_DATA) does not exist" if own else "KBL_DATA is not set"
        raise UserError(
            f"MNIST was not found: {tried}, and Keras could neither read {_keras_file()} nor "
            f"download it ({error}). Put mnist.npz (keys {', '.join(npz.KEYS)}) into a folder and "
            "set KBL_DATA to that folder, or put the file that Keras distributes at "
            f"{_keras_file()}."
        ) from error
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return npz.convert(arrays, name="mnist", source="Keras' mnist.npz")
