import math

import pytest

from kbl.report.formatting import (
    count,
    counted,
    decimals,
    distance,
    duration,
    number,
    passes,
    percent,
    percent_range,
    radius,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (0.3, "0.3"),
        (0.2, "0.2"),
        (0.0, "0"),
        (8 / 255, "8/255"),
        (0.031372550874948502, "8/255"),
        (0.5, "0.5"),
        (0.0123, "0.0123"),
        (math.nan, "—"),
    ],
)
def test_radius(epsilon, text):
    assert radius(epsilon) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3600, "1 h 00 min"),
        (18_120, "5 h 02 min"),
        (math.nan, "—"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_other_numbers():
    assert (percent(0.84321), percent(math.inf)) == ("84.3 %", "—")
    assert (percent_range(0.1, 0.25), percent_range(math.nan, 1)) == ("10.0–25.0 %", "—")
    assert (count(10_000), count(math.nan)) == ("10,000", "—")
    assert (number(2), number("0.5")) == (2.0, 0.5)
    assert all(math.isnan(number(value)) for value in (None, "x", "", [1], math.nan))


@pytest.mark.parametrize(
    ("value", "norm", "text"),
    [
        (0.8312, "l2", "ℓ2 0.831"),
        (8 / 255, "linf", "ℓ∞ 8/255"),
        (12.0, "l0", "ℓ0 12"),
        (math.inf, "l2", "ℓ2 ∞"),
        (math.nan, "l2", "ℓ2 —"),
    ],
)
def test_distance(value, norm, text):
    assert distance(value, norm) == text


@pytest.mark.parametrize(
    ("forward", "backward", "text"),
    [
        (1040.2, 1000, "1,040 + 1,000"),
        (2, 1, "2 + 1"),
        (2.34, 0, "2.3 + 0"),
        (math.nan, 1, "—"),
        (1, math.inf, "—"),
    ],
)
def test_passes(forward, backward, text):
    assert passes(forward, backward) == text


def test_numbers_with_their_nouns():
    assert (counted(1, "check"), counted(0, "check"), counted(1300, "check")) == (
        "1 check",
        "0 checks",
        "1,300 checks",
    )
    assert (decimals(0.71249), decimals(math.nan)) == ("0.712", "—")
