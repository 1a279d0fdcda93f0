"""kbl.data: names, limits and where data lies."""

from pathlib import Path

import numpy as np
import pytest

from kbl import data
from kbl.errors import UserError

pytestmark = pytest.mark.once


def test_names_are_loaded_by_name() -> None:
    assert data.names() == ("digits", "mnist", "cifar10", "cifar100")
    assert data.load("digits").name == "digits"


def test_a_path_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "squares.npz"
    x, y = np.zeros((3, 2, 2, 1), "float32"), np.arange(3)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = data.load(str(path))
    assert dataset.name == "squares"
    assert data.locate(str(path)) == path
    assert data.locate(str(tmp_path / "other.npz")) is None


@pytest.mark.parametrize("ask", [data.load, data.locate])
def test_an_unknown_name_is_answered_with_the_nearest(ask) -> None:
    with pytest.raises(UserError, match=r"Received: 'digit'\. Did you mean 'digits'\?"):
        ask("digit")
    with pytest.raises(UserError, match=r"path ending in \.npz\. Received: 'photographs'\.$"):
        ask("photographs")


def test_limit_keeps_the_first_training_images_and_the_test_part() -> None:
    whole = data.load("digits")
    part = data.load("digits", limit=100)
    np.testing.assert_array_equal(part.x_train, whole.x_train[:100])
    np.testing.assert_array_equal(part.y_train, whole.y_train[:100])
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    assert len(data.load("digits", limit=10**6).x_train) == 1437
    assert set(part.y_train) == set(range(10))


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UserError, match=f"limit must be at least 1 .*Received: {limit}"):
        data.load("digits", limit=limit)
