import pytest

from kbl.report.diagnostics import diagnostics

pytestmark = pytest.mark.once

WARNING = {"name": "zero_gradients", "message": "They vanish.", "remedy": "Use Square."}


@pytest.mark.parametrize(
    ("evaluation", "summary"),
    [
        ({}, "no warnings"),
        ({"warnings": [WARNING]}, "1 warning"),
        ({"checks": []}, "no check was run"),
        ({"checks": ["a"]}, "1 check, none fired"),
        ({"checks": ["a", "b"], "warnings": []}, "2 checks, none fired"),
        ({"checks": ["zero_gradients", "b"], "warnings": [WARNING, "as text"]}, "2 checks, 2 warnings"),
    ],
)
def test_the_summary_counts(evaluation, summary):
    assert diagnostics(evaluation).summary == summary


def test_names_are_words_and_those_that_fired_are_marked():
    found = diagnostics({"checks": ["half_precision", "zero_gradients"], "warnings": [WARNING, "as text"]})
    assert found.marked_checks == [("half precision", False), ("zero gradients", True)]
    assert found.warnings == (
        ("zero gradients", "They vanish.", "Use Square."),
        ("", "as text", ""),
    )
