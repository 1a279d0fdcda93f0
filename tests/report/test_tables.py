import math

import pytest
from rich.console import Console

from kbl.report import accuracy_markdown, accuracy_table, wilson_interval
from kbl.report.formatting import count, duration, number, percent, percent_range, radius

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
    assert "pgd — —" in lines
    assert "Worst case per example —" in lines


def table_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("|:")
    ]


def test_markdown_puts_runs_side_by_side():
    pgd = EVALUATION["attacks"][1]
    other = {"examples": 100, "clean": 0.5, "robust": 0.25, "attacks": [pgd | {"accuracy": 0.25}]}
    assert table_of(accuracy_markdown({"ATBLR": EVALUATION, "AT": other})) == [
        ["Attack", "ε", "Steps", "Restarts", "ATBLR (N = 1,000)", "AT (N = 100)"],
        ["Clean", "", "", "", "90.0 % (88.0–91.7 %)", "50.0 % (40.4–59.6 %)"],
        ["FGSM", "8/255", "", "", "60.0 % (56.9–63.0 %)", "—"],
        ["PGD [targeted]", "8/255", "1,000", "2", "45.0 % (41.9–48.1 %)", "25.0 % (17.5–34.3 %)"],
        ["Worst case per example", "8/255", "", "", "40.0 % (37.0–43.1 %)", "25.0 % (17.5–34.3 %)"],
    ]


def test_markdown_keeps_attacks_that_look_alike_and_those_of_later_runs_above_the_worst_case():
    twice = EVALUATION | {"attacks": [EVALUATION["attacks"][0]] * 2}
    other = EVALUATION | {"attacks": [{"label": "new", "accuracy": 0.4}]}
    labels = [row[0] for row in table_of(accuracy_markdown({"a": twice, "b": other}))[1:]]
    assert labels[:4] == ["Clean", "FGSM", "FGSM", "new"]


def test_markdown_worst_cases_at_different_radii_do_not_share_a_row():
    far = EVALUATION | {"attacks": [{"label": "FGSM", "parameters": {"epsilon": 0.3}, "accuracy": 0.4}]}
    rows = table_of(accuracy_markdown({"a": EVALUATION, "b": far}))
    assert [row[1] for row in rows if row[0].startswith("Worst")] == ["8/255", "0.3"]


def test_markdown_escapes_pipes_and_tells_the_warnings():
    evaluation = EVALUATION | {
        "warnings": [{"name": "Masking", "message": "gradients vanish.", "remedy": "attack more"}, "plain"]
    }
    text = accuracy_markdown({"a|b": evaluation})
    assert "| a\\|b (N = 1,000) |" in text
    assert "**Warning** (a|b): Masking: gradients vanish. What to do: attack more" in text
    assert "**Warning** (a|b): plain" in text


def test_a_norm_other_than_linf_is_named():
    attack = {"label": "PGD", "parameters": {"epsilon": 0.5, "norm": "l2"}, "accuracy": 0.4}
    rows = table_of(accuracy_markdown({"a": EVALUATION | {"attacks": [attack]}}))
    assert rows[2][:2] == ["PGD", "0.5 (ℓ2)"]


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
