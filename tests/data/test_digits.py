"""The embedded digits: their form, and that they never change."""

import hashlib

import numpy as np
import pytest

from kbl import data

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits")


def test_form(digits: data.Dataset) -> None:
    assert digits.x_train.shape == (1437, 8, 8, 1)
    assert digits.x_test.shape == (360, 8, 8, 1)
    assert digits.y_train.shape == (1437,)
    assert digits.y_test.shape == (360,)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int32
    assert digits.num_classes == 10
    assert digits.image_shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")


def test_values_are_the_sixteenths_from_0_to_1(digits: data.Dataset) -> None:
    levels = np.unique(digits.x_train)
    np.testing.assert_array_equal(levels, np.arange(17, dtype="float32") / 16)


def test_the_split_is_stratified_and_disjoint(digits: data.Dataset) -> None:
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    np.testing.assert_array_equal(train + test, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    np.testing.assert_allclose(test, (train + test) * 360 / 1797, atol=1)
    everything = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, 64)
    assert len(np.unique(everything, axis=0)) == 1797


def test_the_data_never_changes(digits: data.Dataset) -> None:
    x = np.concatenate([digits.x_train, digits.x_test]) * 16
    y = np.concatenate([digits.y_train, digits.y_test])
    content = x.astype("uint8").tobytes() + y.astype("uint8").tobytes()
    expected = "335c78791c972046ac362e376048f92577c743c61d4729457f63bddf479db09b"
    assert hashlib.sha256(content).hexdigest() == expected


def test_source_and_licence_lie_beside_the_file() -> None:
    text = data.locate("digits").with_name("DIGITS.md").read_text(encoding="utf-8")
    for fact in ("Alpaydin", "Kaynak", "UCI", "CC BY 4.0", "scikit-learn"):
        assert fact in text
