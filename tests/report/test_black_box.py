import math

import pytest

from kbl.report.black_box import black_box, lowest_accuracy

pytestmark = pytest.mark.once


def test_square_stands_before_the_transferred(evaluation):
    found = black_box(evaluation)
    assert [(row.label, row.kind, row.depth, round(row.accuracy, 3)) for row in found.rows] == [
        ("Square-5000", "attack", 0, 0.75),
        ("Square-5000, within AutoAttack standard", "attack", 0, 0.7),
        ("PGD-40 ×5", "attack", 0, 0.85),
        ("FGSM", "attack", 0, 0.889),
        ("Worst case of the transferred", "worst", 0, 0.847),
    ]


def test_the_text_says_what_is_there_and_nothing_else(evaluation):
    text = black_box(evaluation).text
    assert "hides its gradients" in text
    assert "only the images that the parts before it left" in text
    assert "another network (runs/digits-torch-2), whose clean accuracy is 97.2 %" in text
    evaluation["transfer"] = None
    assert "crafted on" not in black_box(evaluation).text
    del evaluation["attacks"][2]["parts"]
    assert "parts before it" not in black_box(evaluation).text
    assert "scores alone" in black_box(evaluation).text


def test_a_substitute_of_which_nothing_is_known():
    transfer = {
        "substitute": None,
        "clean": None,
        "robust": 0.8,
        "attacks": [{"label": "a", "accuracy": 0.8}],
    }
    found = black_box({"examples": 10, "transfer": transfer})
    assert [row.kind for row in found.rows] == ["attack"]  # the worst case of one is that one
    assert "crafted on another network, and shown to this one" in found.text


@pytest.mark.parametrize("transfer", [None, {}, {"robust": 0.5, "attacks": []}])
def test_without_a_black_box_attack_there_is_no_section(transfer):
    evaluation = {"examples": 10, "attacks": [{"name": "pgd", "accuracy": 0.5}], "transfer": transfer}
    assert black_box(evaluation) is None
    assert math.isnan(lowest_accuracy(evaluation))


def test_the_lowest_accuracy_is_of_attacks_on_every_image(evaluation):
    assert lowest_accuracy(evaluation) == 0.75  # Square by itself; within AutoAttack it had only the rest
    evaluation["transfer"]["robust"] = 0.6
    assert lowest_accuracy(evaluation) == 0.6
    evaluation["transfer"] = None
    assert lowest_accuracy(evaluation) == 0.75
