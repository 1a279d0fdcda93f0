"""Each backend against the numbers of golden.json, so all backends against one another."""

import json

import make_golden
import numpy as np
import pytest

GOLDEN = json.loads(make_golden.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def computed():
    return make_golden.compute()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(computed, name) -> None:
    found, expected = computed[name], GOLDEN[name]
    if isinstance(expected, str):
        assert found == expected
        return
    tolerance = {"rtol": 1e-4} if name == "training losses" else {"rtol": 1e-5, "atol": 1e-5}
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, **tolerance)


def test_nothing_goes_unchecked(computed) -> None:
    assert set(computed) == set(GOLDEN)
    assert len(GOLDEN["training losses"]) == 20


def test_the_numbers_can_tell_errors_apart() -> None:
    """They differ from one another by more than what is forgiven, so that a mix-up would be seen."""
    steps = [np.array(GOLDEN[f"step {form}"]) for form in ("exact", "bound", "means")]
    for a in range(3):
        for b in range(a):
            assert np.abs(steps[a] - steps[b]).max() > 1e-3
    assert np.ptp(GOLDEN["training losses"]) > 0.01 * np.mean(GOLDEN["training losses"])
