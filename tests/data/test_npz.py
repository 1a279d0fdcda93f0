"""Datasets from .npz files: the forms taken, and the errors of all others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbl.data import npz
from kbl.errors import UserError

pytestmark = pytest.mark.once


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    """Four valid arrays, some of them changed; None takes one away."""
    rng = np.random.default_rng(0)
    valid = {
        "x_train": rng.integers(0, 256, (6, 4, 5, 3), dtype="uint8"),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (2, 4, 5, 3), dtype="uint8"),
        "y_test": np.array([2, 0]),
    }
    return {key: value for key, value in {**valid, **changes}.items() if value is not None}


def load(folder: Path, **changes: Any) -> Any:
    path = folder / "made.npz"
    np.savez(path, **arrays(**changes))
    return npz.load(path)


def test_uint8_images_are_divided_by_255(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    assert dataset.x_train.dtype == np.float32
    np.testing.assert_array_equal(dataset.x_train, arrays()["x_train"] / np.float32(255))
    np.testing.assert_array_equal(dataset.y_test, [2, 0])
    assert dataset.y_train.dtype == np.int32
    assert (dataset.name, dataset.num_classes, dataset.image_shape) == ("made", 3, (4, 5, 3))
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_images_are_kept(tmp_path: Path, dtype: str) -> None:
    x = np.linspace(0, 1, 6 * 4 * 5 * 3).reshape(6, 4, 5, 3).astype(dtype)
    dataset = load(tmp_path, x_train=x)
    assert dataset.x_train.dtype == np.float32
    np.testing.assert_array_equal(dataset.x_train, x.astype("float32"))


def test_images_without_a_channel_axis_get_one(tmp_path: Path) -> None:
    x = np.full((6, 4, 5), 255, "uint8")
    dataset = load(tmp_path, x_train=x, x_test=x[:2])
    assert dataset.image_shape == (4, 5, 1)
    assert dataset.x_test.max() == 1


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y[:, None],
        lambda y: np.eye(3)[y],
        lambda y: np.eye(3, dtype=bool)[y],
        lambda y: y.astype("uint64"),
    ],
    ids=["column", "one-hot", "boolean one-hot", "uint64"],
)
def test_forms_of_labels(tmp_path: Path, form: Any) -> None:
    given = arrays()
    dataset = load(tmp_path, y_train=form(given["y_train"]), y_test=form(given["y_test"]))
    np.testing.assert_array_equal(dataset.y_train, given["y_train"])
    np.testing.assert_array_equal(dataset.y_test, given["y_test"])
    assert dataset.y_train.dtype == np.int32
    assert dataset.num_classes == 3


def test_classes_without_an_image_are_counted(tmp_path: Path) -> None:
    assert load(tmp_path, y_test=np.array([7, 0])).num_classes == 8
    one_hot = np.eye(9)
    y_train, y_test = one_hot[arrays()["y_train"]], one_hot[arrays()["y_test"]]
    assert load(tmp_path, y_train=y_train, y_test=y_test).num_classes == 9


FLOATS = np.full((6, 4, 5, 3), 0.5)


def with_value(value: float) -> np.ndarray:
    x = FLOATS.copy()
    x[3, 2, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"lacks y_test\. Expected the keys x_train, y_train, x_test, y_test"),
        ({"x_train": with_value(np.nan)}, "x_train in .*made.npz must be finite"),
        ({"x_train": with_value(np.inf)}, "must be finite"),
        ({"x_train": with_value(1.5)}, r"must lie in \[0, 1\].*float64 in \[0.5, 1.5\]"),
        ({"x_train": with_value(-0.25)}, r"Received: float64 in \[-0.25, 0.5\]"),
        ({"x_train": FLOATS.astype("int64")}, "must be uint8 .*Received: int64"),
        ({"x_train": np.eye(5, dtype="uint8")[None, :4, :, None]}, "no value above 1"),
        ({"x_train": FLOATS.astype(str)}, "must be uint8 .*Received: <U"),
        ({"x_train": FLOATS.reshape(6, -1)}, r"of shape \(N, H, W, C\).*Received: \(6, 60\)"),
        ({"x_train": FLOATS[:0]}, r"Received: \(0, 4, 5, 3\)"),
        ({"x_train": np.zeros((6, 3, 4, 5))}, r"looks channels-first.*transpose.*\(6, 3, 4, 5\)"),
        ({"x_train": np.zeros((6, 1, 8, 8))}, "looks channels-first"),
        ({"x_train": FLOATS[:, :, :, :1]}, "one shape.*x_test of shape"),
        ({"y_train": np.arange(5)}, "equally long. Received: 6 images, 5 labels"),
        ({"y_train": np.array([0, 1, 2, -1, 0, 0])}, "class numbers.*from -1 to 2"),
        ({"y_train": np.array([0, 1, 2, 10**6, 0, 0])}, "at most 99999.*to 1000000"),
        ({"y_train": np.zeros(6)}, "must be integers. Received: float64"),
        ({"y_train": np.array(list("abcabc"))}, "must hold integers.*Received: <U1"),
        ({"y_train": np.ones((6, 3))}, r"of shape \(6, 3\) must be one-hot"),
        ({"y_train": np.full((6, 2), 0.5)}, "must be one-hot"),
        ({"y_train": np.zeros((6, 3, 1), int)}, "must hold integers"),
        ({"y_train": np.eye(3)[[0, 1, 2, 0, 1, 2]]}, r"must have one form.*\(6, 3\), .*\(2,\)"),
        ({"x_train": np.array([{}], dtype=object)}, "holds Python objects"),
    ],
)
def test_faults_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, **changes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.npz"):
        npz.load(tmp_path / "absent.npz")
    with pytest.raises(UserError, match="no file"):
        npz.load(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, **arrays())
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[200] ^= 0xFF
    for damaged in (b"", b"not an archive", content[: len(content) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"damaged\.npz cannot be read as an \.npz file"):
            npz.load(path)


def test_an_npy_file_is_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "array.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"holds one array, not an \.npz archive"):
        npz.load(path)
