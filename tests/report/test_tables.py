import math

import pytest
from rich.console import Console

from kbl.report import accuracy_markdown, accuracy_table, evaluation_tables, wilson_interval

pytestmark = pytest.mark.once

EVALUATION = {
    "examples": 1000,
    "clean": 0.9,
    "robust": 0.4,
    "attacks": [
        {"name": "fgsm", "label": "FGSM", "parameters": {"epsilon": 8 / 255}, "accuracy": 0.6},
        {
            "name": "pgd",
            "label": "PGD [targeted]",
            "parameters": {"epsilon": 8 / 255, "steps": 1000, "restarts": 2},
            "accuracy": 0.45,
            "seconds": 65.0,
        },
    ],
}


@pytest.mark.parametrize(
    ("fraction", "examples", "low", "high"),
    [
        # the roots of (p - x)² = z² x (1 - x) / n for z = 1.959964, found as a polynomial's
        (0.5, 100, 0.40383153, 0.59616847),
        (0.8, 10, 0.49016247, 0.94331785),
        (0.0, 10, 0.0, 0.27753279),  # z² / (n + z²)
        (1.0, 10, 0.72246721, 1.0),
    ],
)
def test_wilson_interval(fraction, examples, low, high):
    assert wilson_interval(fraction, examples) == pytest.approx((low, high), abs=1e-8)


def test_wilson_interval_takes_another_confidence():
    # z = 2.5758293, n = 100, p = 1/2: ½ ± z / (2 √(n + z²))
    assert wilson_interval(0.5, 100, confidence=0.99) == pytest.approx((0.37527963, 0.62472037), abs=1e-8)


@pytest.mark.parametrize(("fraction", "examples"), [(math.nan, 10), (0.5, 0)])
def test_wilson_interval_of_nothing_is_nan(fraction, examples):
    assert all(math.isnan(bound) for bound in wilson_interval(fraction, examples))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((84.3, 10), "fraction"),
        ((-0.1, 10), "fraction"),
        ((0.5, -1), "examples"),
        ((0.5, 9, 95), "confidence"),
    ],
)
def test_wilson_interval_names_the_wrong_argument(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` .* Received: {name}="):
        wilson_interval(*arguments)


def shown(evaluation):
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(accuracy_table(evaluation))
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def test_the_terminal_shows_clean_each_attack_and_the_worst_case():
    lines = shown(EVALUATION)
    assert "Clean 90.0 % 88.0–91.7 %" in lines
    assert "FGSM 8/255 60.0 % 56.9–63.0 % —" in lines
    assert "PGD [targeted] 8/255 1,000 2 45.0 % 41.9–48.1 % 1 min 05 s" in lines
    assert "Worst case per example 8/255 40.0 % 37.0–43.1 %" in lines
    assert "1,000 examples; intervals are 95 % Wilson intervals" in lines


def test_the_terminal_counts_the_warnings():
    assert shown(EVALUATION | {"warnings": ["a", {"name": "b"}]})[-1].endswith("; 2 warnings")


@pytest.mark.parametrize("attacks", [[], None])
def test_without_an_attack_no_robustness_is_claimed(attacks):
    evaluation = EVALUATION | {"attacks": attacks, "robust": 0.9}
    assert not any("Worst" in line for line in shown(evaluation))
    assert "Worst" not in accuracy_markdown({"a": evaluation})


def test_what_is_not_a_number_is_a_dash():
    lines = shown({"examples": None, "clean": math.nan, "robust": None, "attacks": [{"name": "pgd"}]})
    assert "Clean —" in lines
    assert "pgd —" in lines  # no time is known of any attack: no such column
    assert "Worst case per example —" in lines


def printed(renderable, width):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


EVERY_COLUMN = "Attack ε Steps Restarts Accuracy 95 % interval Passes Time"


def heading(lines):
    return next(line for line in lines if line.strip().startswith("Attack")).split()


def test_100_columns_hold_every_column_and_no_line_is_longer(evaluation):
    lines = printed(evaluation_tables(evaluation), 100)
    assert max(map(len, lines)) <= 100
    assert heading(lines) == EVERY_COLUMN.split()
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("width", "left"),
    [
        (90, "Attack ε Steps Restarts Accuracy 95 % interval Time"),
        (80, "Attack ε Steps Restarts Accuracy 95 % interval"),
        (60, "Attack ε Accuracy 95 % interval"),
        (46, "Attack Accuracy 95 % interval"),
    ],
)
def test_a_narrow_terminal_leaves_columns_out_one_by_one(evaluation, width, left):
    lines = printed(accuracy_table(evaluation), width)
    assert heading(lines) == left.split()
    assert max(map(len, lines)) <= width


def test_parts_are_indented_under_their_attack_and_a_nearest_distance_stands_for_accuracy(evaluation):
    lines = printed(accuracy_table(evaluation), 100)
    named = [line for line in lines if "0." in line]
    whole = next(place for place, line in enumerate(named) if line.startswith(" AutoAttack standard"))
    assert named[whole + 1].startswith("   APGD-100, CE ")
    assert " ".join(named[whole + 1].split()) == "APGD-100, CE 0.15 100 1 72.5 % 67.7–76.9 % 61 + 60 18.2 s"
    nearest = next(line for line in lines if "C&W" in line)
    assert " ".join(nearest.split()) == "C&W L2 1,000 median ℓ2 0.831 5,400 + 5,391 3 min 25 s"


def test_the_caption_explains_and_counts_the_checks(evaluation):
    text = " ".join(" ".join(printed(accuracy_table(evaluation), 100)).split())
    assert "indented: what was left right after each part" in text
    assert text.endswith("13 checks, 1 warning")


def test_the_terminal_shows_every_section_that_there_is(evaluation):
    text = " ".join(" ".join(printed(evaluation_tables(evaluation), 100)).split())
    for title in ("Black box", "Detection by likelihood", "Rejection"):
        assert title in text
    assert "APGD, likely and wrong 0.541 93.0 % 353" in text
    assert "Clean: accepted and right 94.0 % 5.0 %" in text
    plain = " ".join(printed(evaluation_tables(EVALUATION), 100))
    assert "Accuracy" in plain
    assert not {"Black", "Detection", "Rejection"} & set(plain.split())
