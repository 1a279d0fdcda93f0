"""Any NumPy .npz file with the keys x_train, y_train, x_test and y_test."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kbl.data.dataset import Dataset
from kbl.errors import UserError

KEYS = ("x_train", "y_train", "x_test", "y_test")
# More classes than this is a mistaken label (an identifier, say), and costs memory without bound.
_MOST_CLASSES = 100_000


def load(path: str | Path, name: str | None = None) -> Dataset:
    """Read a dataset from an .npz file.

    Args:
        path: the file. Its images are uint8 in 0..255 or float in [0, 1], of shape (N, H, W, C)
            or (N, H, W); its labels are integers of shape (N,) or (N, 1), or one-hot (N, K).
        name: what to call the dataset; by default the file's name without its ending.

    Raises:
        UserError: the file is missing, damaged or holds something else; the text says what.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {path}. Expected an .npz file with {', '.join(KEYS)}.")
    try:
        # Opened here, since np.load leaves a damaged file open.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise UserError(f"{path} holds one array, not an .npz archive: use numpy.savez.")
            arrays = {key: archive[key] for key in KEYS if key in archive}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            error = ValueError("it holds Python objects; save plain numeric arrays")
        raise UserError(f"{path} cannot be read as an .npz file of arrays: {error}.") from error
    return convert(arrays, name=path.stem if name is None else name, source=str(path))


def convert(arrays: Mapping[str, npt.NDArray[Any]], name: str, source: str) -> Dataset:
    """Check four arrays and put them into a `Dataset`'s form.

    Args:
        arrays: the arrays under `KEYS`, as `load` describes them.
        name: what to call the dataset.
        source: where the arrays are from, for error messages.

    Raises:
        UserError: a key is missing, or an array is not what it should be.
    """
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise UserError(f"{source} lacks {', '.join(missing)}. Expected the keys {', '.join(KEYS)}.")
    images = {key: _images(arrays[key], f"{key} in {source}") for key in ("x_train", "x_test")}
    labels = {key: _labels(arrays[key], f"{key} in {source}") for key in ("y_train", "y_test")}
    if images["x_train"].shape[1:] != images["x_test"].shape[1:]:
        raise UserError(
            f"The images in {source} must have one shape. Received: x_train of shape "
            f"{arrays['x_train'].shape}, x_test of shape {arrays['x_test'].shape}"
        )
    for part in ("train", "test"):
        if len(images[f"x_{part}"]) != len(labels[f"y_{part}"][0]):
            raise UserError(
                f"x_{part} and y_{part} in {source} must be equally long. Received: "
                f"{len(images[f'x_{part}'])} images, {len(labels[f'y_{part}'][0])} labels"
            )
    if arrays["y_train"].shape[1:] != arrays["y_test"].shape[1:]:
        raise UserError(
            f"The labels in {source} must have one form. Received: y_train of shape "
            f"{arrays['y_train'].shape}, y_test of shape {arrays['y_test'].shape}"
        )
    num_classes = max(labels["y_train"][1], labels["y_test"][1])
    return Dataset(
        name=name,
        x_train=images["x_train"],
        y_train=labels["y_train"][0],
        x_test=images["x_test"],
        y_test=labels["y_test"][0],
        class_names=tuple(str(label) for label in range(num_classes)),
    )


def _images(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.float32]:
    """Return images as (N, H, W, C) float32 in [0, 1]; `what` names the array in errors."""
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise UserError(
            f"{what} must hold images of shape (N, H, W, C) or (N, H, W). Received: {array.shape}"
        )
    if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3, 4):
        raise UserError(
            f"{what} looks channels-first; expected channels last, (N, H, W, C): use "
            f"x.transpose(0, 2, 3, 1). Received: {array.shape}"
        )
    if array.dtype == np.uint8:
        if array.max() == 1:
            raise UserError(
                f"{what} is uint8 with no value above 1; uint8 images count in 0..255. If 1 is "
                "white, save them as float32."
            )
        array = array.astype(np.float32) / np.float32(255)
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UserError(f"{what} must be finite. Received: NaN or infinity in the images")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise UserError(
                f"{what} must lie in [0, 1], or be uint8 in 0..255. Received: {array.dtype} in "
                f"[{low:g}, {high:g}]"
            )
        array = array.astype(np.float32)
    else:
        raise UserError(f"{what} must be uint8 in 0..255 or float in [0, 1]. Received: {array.dtype}")
    return array if array.ndim == 4 else array[..., np.newaxis]


def _labels(array: npt.NDArray[Any], what: str) -> tuple[npt.NDArray[np.int32], int]:
    """Return labels as (N,) int32, and the number of classes they need."""
    if array.ndim not in (1, 2) or 0 in array.shape or array.dtype.kind not in "iufb":
        raise UserError(
            f"{what} must hold integers of shape (N,) or (N, 1), or be one-hot of shape (N, K). "
            f"Received: {array.dtype} of shape {array.shape}"
        )
    if array.ndim == 2 and array.shape[1] > 1:
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise UserError(f"{what} of shape {array.shape} must be one-hot: a single 1 a row")
        return array.argmax(axis=1).astype(np.int32), array.shape[1]
    if array.dtype.kind not in "iu":
        raise UserError(f"{what} must be integers. Received: {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= _MOST_CLASSES:
        raise UserError(
            f"{what} must be class numbers 0, 1, …, at most {_MOST_CLASSES - 1}. Received: labels "
            f"from {low} to {high}"
        )
    return array.reshape(-1).astype(np.int32), high + 1
