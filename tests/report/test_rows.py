import pytest

from kbl.report.evaluation import is_bounded
from kbl.report.rows import accuracy_notes, accuracy_rows, columns_in_use

pytestmark = pytest.mark.once

NEAREST = {"name": "carlini_wagner", "label": "C&W L2", "accuracy": 0.0, "parameters": {"steps": 1000}}


def attack(label, accuracy=0.5, **more):
    return {"label": label, "accuracy": accuracy, "parameters": {"epsilon": 0.1}, **more}


def evaluation_of(*attacks, **more):
    return {"examples": 100, "clean": 0.9, "robust": 0.5, "attacks": list(attacks), **more}


def test_parts_follow_their_attack_one_level_deeper():
    inner = attack("inner", parts=[attack("innermost")])
    rows = accuracy_rows(evaluation_of(attack("whole", parts=[attack("a"), inner]), attack("b")))
    assert [(row.kind, row.label, row.depth) for row in rows] == [
        ("clean", "Clean", 0),
        ("attack", "whole", 0),
        ("part", "a", 1),
        ("part", "inner", 1),
        ("part", "innermost", 2),
        ("attack", "b", 0),
        ("worst", "Worst case per example", 0),
    ]


def test_passes_are_the_mean_over_the_images_attacked():
    (_, row, _) = accuracy_rows(evaluation_of(attack("a", attacked=40, forward=4100, backward=4000)))
    assert row.passes == "102 + 100"  # not divided by the 100 examples
    (_, row, _) = accuracy_rows(evaluation_of(attack("a", attacked=0, forward=0, backward=0)))
    assert row.passes == "—"


def test_a_minimum_norm_attack_tells_its_distance_and_takes_no_part_in_the_radius():
    nearest = NEAREST | {"distance": {"norm": "l2", "median": 0.8312}}
    rows = accuracy_rows(evaluation_of(attack("a"), nearest))
    assert (rows[2].cell, rows[2].interval, rows[2].epsilon) == ("median ℓ2 0.831", "", "")
    assert rows[3].epsilon == "0.1"


def test_a_minimum_norm_attack_alone_measures_no_robustness():
    evaluation = evaluation_of(NEAREST | {"distance": {"norm": "l2", "median": None}})
    rows = accuracy_rows(evaluation)
    assert not is_bounded(evaluation)
    assert [row.kind for row in rows] == ["clean", "attack"]
    assert rows[1].cell == "median ℓ2 —"


def test_different_radii_give_the_worst_case_none():
    far = attack("b") | {"parameters": {"epsilon": 0.2}}
    assert accuracy_rows(evaluation_of(attack("a"), far))[-1].epsilon == ""


def test_columns_that_are_empty_in_every_row_are_not_in_use():
    assert columns_in_use(accuracy_rows(evaluation_of(attack("a")))) == ["ε"]
    steps = attack("b", seconds=1.0) | {"parameters": {"steps": 3, "restarts": None}}
    assert columns_in_use(accuracy_rows(evaluation_of(steps))) == ["Steps", "Time"]


def test_the_notes_say_what_the_rows_need(evaluation):
    text = " ".join(accuracy_notes(evaluation))
    for words in ("360 test examples", "upper bound", "Indented", "minimum-norm", "mean per image attacked"):
        assert words in text
    assert "found none" not in text
    evaluation["attacks"][-1]["accuracy"] = 0.02
    assert "C&W L2 found none for 2.0 % of the images." in accuracy_notes(evaluation)
    plain = " ".join(accuracy_notes(evaluation_of()))
    assert not [words for words in ("upper bound", "Indented", "minimum", "Passes") if words in plain]


@pytest.mark.parametrize("broken", [None, "text", [None, "text"], {"a": 1}])
def test_what_is_no_list_of_attacks_is_none(broken):
    rows = accuracy_rows({"examples": 10, "clean": 0.5, "attacks": broken})
    assert [row.kind for row in rows] == ["clean"]
    parameters = {"epsilon": 0.1} if isinstance(broken, dict) else broken
    rows = accuracy_rows(evaluation_of(attack("a", parts=broken, parameters=parameters, distance=None)))
    assert [row.label for row in rows] == ["Clean", "a", "Worst case per example"]


def test_an_attack_without_a_radius_is_part_of_no_worst_case():
    """Such as JSMA, which changes a few pixels by much."""
    rows = accuracy_rows(evaluation_of(attack("a", parameters={"theta": 1.0}, distance=None)))
    assert [row.label for row in rows] == ["Clean", "a"]
