import pytest

from kbl.report.detection import detection, rejection

pytestmark = pytest.mark.once


def test_detection_gives_a_row_an_attack_and_says_which_to_believe(evaluation):
    found = detection(evaluation)
    assert found.headings == ("Attack", "AUROC", "FPR at 95 % TPR", "Images")
    assert found.rows == [
        ("APGD-CE, all steps", "0.912", "35.0 %", "353"),
        ("APGD, likely and wrong", "0.541", "93.0 %", "353"),
    ]
    assert "score is the max log-likelihood" in found.text
    assert "“APGD-CE, all steps” knows nothing of the score" in found.text
    assert "The row to believe is “APGD, likely and wrong”" in found.text


def test_an_attack_that_knows_nothing_of_the_score_is_not_to_be_believed(evaluation):
    del evaluation["detection"]["attacks"][1]
    assert "against an attacker who does, expect less" in detection(evaluation).text
    assert "believe" not in detection(evaluation).text


def test_what_could_not_be_measured_is_a_dash():
    attacks = [{"label": "a", "auroc": None, "fpr95": None, "examples": 0}]
    assert detection({"detection": {"attacks": attacks}}).rows == [("a", "—", "—", "0")]


def test_images_without_a_score_are_counted(evaluation):
    assert "Left out" not in detection(evaluation).text
    evaluation["detection"]["attacks"][1]["unscored"] = 3
    told = "Left out, since their logits are not a number: APGD, likely and wrong 3."
    assert detection(evaluation).text.endswith(told)


def test_rejection_tells_gain_and_cost(evaluation):
    found = rejection(evaluation)
    assert found.rows == [
        ("Clean: accepted and right", "94.0 %", "5.0 %"),
        ("APGD-CE, all steps", "86.1 %", "31.0 %"),
        ("APGD, likely and wrong", "75.3 %", "6.0 %"),
        ("Worst case per example", "75.3 %", ""),
    ]
    assert "below -12.31, the 5 % quantile of 1,000 training images, is rejected" in found.text


def test_rejection_without_attacks_claims_no_worst_case():
    found = rejection({"rejection": {"clean": 0.9, "robust": 0.9}})
    assert found.rows == [("Clean: accepted and right", "90.0 %", "—")]


@pytest.mark.parametrize(
    "nothing", [{}, {"detection": None, "rejection": None}, {"detection": [], "rejection": 1}]
)
def test_what_was_not_asked_is_not_there(nothing):
    assert detection(nothing) is None
    assert rejection(nothing) is None
