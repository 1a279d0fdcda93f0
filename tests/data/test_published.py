"""MNIST and CIFAR: where they are looked for. The images here are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbl import data
from kbl.errors import UserError


def arrays() -> dict[str, np.ndarray]:
    x = np.arange(4 * 28 * 28, dtype="uint16").reshape(4, 28, 28) % 256
    y = np.array([9, 0, 5, 1], "uint8")
    x = x.astype("uint8")
    return {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's own folder nor Keras' cache, and no network."""
    from keras.datasets import mnist

    def offline() -> Any:
        raise Exception("URL fetch failure: no network")

    monkeypatch.delenv("KBL_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(mnist, "load_data", offline)


def test_the_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mnist.npz", **arrays())
    monkeypatch.setenv("KBL_DATA", str(tmp_path))
    assert data.locate("mnist") == tmp_path / "mnist.npz"
    dataset = data.load("mnist", limit=3)
    assert dataset.name == "mnist"
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.num_classes == 10
    np.testing.assert_array_equal(dataset.x_train[..., 0], arrays()["x_train"][:3] / np.float32(255))
    np.testing.assert_array_equal(dataset.y_train, [9, 0, 5])


@pytest.mark.parametrize("own", [False, True], ids=["unset", "set to an empty folder"])
def test_keras_comes_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    from keras.datasets import mnist

    if own:
        monkeypatch.setenv("KBL_DATA", str(tmp_path))
    given = arrays()
    pairs = ((given["x_train"], given["y_train"]), (given["x_test"], given["y_test"]))
    monkeypatch.setattr(mnist, "load_data", lambda: pairs)
    np.testing.assert_array_equal(data.load("mnist").y_test, [9, 0])
    assert data.locate("mnist") is None
    cached = tmp_path / "keras" / "datasets" / "mnist.npz"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert data.locate("mnist") == cached


def test_absent_and_offline_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"KBL_DATA is not set.*no network.*Put mnist\.npz"):
        data.load("mnist")
    monkeypatch.setenv("KBL_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        data.load("mnist")
    assert str(tmp_path / "mnist.npz") in str(caught.value)
    assert str(tmp_path / "keras" / "datasets" / "mnist.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_own_file_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04")
    monkeypatch.setenv("KBL_DATA", str(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        data.load("mnist")


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_has_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int) -> None:
    x = np.arange(3 * 32 * 32 * 3, dtype="uint32").reshape(3, 32, 32, 3).astype("uint8")
    y = np.array([[9], [0], [1]], "uint8")
    np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setenv("KBL_DATA", str(tmp_path))
    dataset = data.load(name)
    assert data.locate(name) == tmp_path / f"{name}.npz"
    assert dataset.image_shape == (32, 32, 3)
    assert len(set(dataset.class_names)) == dataset.num_classes == classes
    np.testing.assert_array_equal(dataset.y_train, [9, 0, 1])
    assert dataset.class_names[9] == {"cifar10": "truck", "cifar100": "bottle"}[name]


def test_more_classes_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**arrays(), "y_test": np.array([10, 0], "uint8")}
    np.savez(tmp_path / "mnist.npz", **given)
    monkeypatch.setenv("KBL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"mnist has 10 classes\. Received: labels up to 10"):
        data.load("mnist")


def test_keras_keeps_cifar_in_a_folder(tmp_path: Path) -> None:
    assert data.locate("cifar10") is None
    folder = tmp_path / "keras" / "datasets" / "cifar-10-batches-py-target"
    folder.mkdir(parents=True)
    assert data.locate("cifar10") == folder
