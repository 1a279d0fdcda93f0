"""Detection by likelihood and rejection, against hand counts."""

import numpy as np
import pytest

import kbl
from kbl.attacks import PGD
from kbl.data import load
from kbl.evaluation.detection import auroc, detection, fpr_at_tpr, rejection


def test_auroc_by_hand() -> None:
    """Of the nine pairs of {1, 2, 3} and {0, 2, 2} clean is higher in 3 + 0 ... counted one by one."""
    clean, adversarial = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 2.0])
    pairs = [(c > a) + 0.5 * (c == a) for c in clean for a in adversarial]
    assert auroc(clean, adversarial) == pytest.approx(sum(pairs) / 9)
    assert auroc(clean, clean) == 0.5
    assert auroc(clean, clean - 5) == 1.0
    assert auroc(clean, clean + 5) == 0.0
    assert np.isnan(auroc(clean, np.array([])))


def test_fpr_by_hand() -> None:
    """To accept 95 of the scores 1 to 100 the threshold is 6; of 0, 6 and 50 two pass."""
    clean = np.arange(1.0, 101.0)
    assert fpr_at_tpr(clean, np.array([0.0, 6.0, 50.0])) == pytest.approx(2 / 3)
    assert fpr_at_tpr(clean, np.array([5.9])) == 0.0


def test_rejection_by_hand() -> None:
    clean = np.array([5.0, 1.0, 5.0, 5.0])
    right = np.array([True, True, True, False])
    stands = np.array([True, False, False, False])
    scores = np.array([5.0, 5.0, 0.0, 0.0])
    found = rejection(
        0.25, np.array([1.0, 2.0, 3.0, 4.0, 5.0]), "five", clean, right, [("a", stands, scores)]
    )
    assert found["threshold"] == 2.0
    assert found["clean_rejected"] == 0.25
    assert found["clean"] == 0.5  # the second is right but rejected, the fourth wrong
    # The first stands, the second fools and is accepted, the third is rejected, the fourth was wrong unattacked.
    assert found["robust"] == 0.5
    assert found["attacks"] == [{"label": "a", "accuracy": 0.5, "rejected": 0.25}]


def test_histograms_count_every_image() -> None:
    found = detection(np.random.default_rng(0).normal(size=100), {"a": np.array([-40.0, 3.0])})
    assert sum(found["histogram"]["clean"]) == 100
    assert sum(found["histogram"]["series"]["a"]) == 2
    assert len(found["histogram"]["edges"]) == 21
    assert [row["examples"] for row in found["attacks"]] == [2]


def test_an_image_whose_logits_are_not_numbers_has_no_score() -> None:
    """Of what is left, 1.0 lies below three of the clean scores, equals one and is above one: 0.7."""
    nan = np.nan
    attacked = {"a": np.array([nan, 1.0]), "b": np.array([nan]), "c": np.array([-np.inf])}
    found = detection(np.array([0.0, 1.0, 2.0, nan, 3.0, 4.0]), attacked)
    rows = [(row["auroc"], row["fpr95"], row["examples"], row["unscored"]) for row in found["attacks"]]
    assert rows == [(0.7, 1.0, 1, 1), (None, None, 0, 1), (1.0, 0.0, 1, 0)]
    assert found["unscored"] == 1
    assert [sum(found["histogram"]["series"][label]) for label in "abc"] == [1, 0, 1]
    assert sum(found["histogram"]["clean"]) == 5
    nothing = detection(np.array([nan]), {"a": np.array([nan])})
    assert nothing["attacks"][0]["auroc"] is None
    known = np.array([nan, 1.0, 2.0, 3.0])
    right = np.array([True])
    assert rejection(0.5, known, "four", np.array([2.0]), right, [])["threshold"] == 2.0
    assert rejection(0.5, known[:1], "one", np.array([2.0]), right, [])["threshold"] is None


@pytest.fixture(scope="module")
def gaussian():
    """A network whose mean of class k is the mean image of class k: a real Gaussian classifier of the digits."""
    import keras

    data = load("digits")
    head = kbl.layers.GMMHead(10)
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Rescaling(3.0), head]
    )
    flat = data.x_train.reshape(-1, 64)
    head.set_weights([3.0 * np.stack([flat[data.y_train == k].mean(axis=0) for k in range(10)])])
    return network, data


def test_an_attack_that_knows_of_the_score_is_detected_less(gaussian) -> None:
    network, data = gaussian
    x, y = data.x_test[:60], data.y_test[:60]
    found = kbl.evaluate(
        network,
        x,
        y,
        [PGD(0.1, 0.02, 10)],
        reject_below=0.1,
        calibration=data.x_train[:200],
        diagnostics=False,
    )
    ordinary, evasive = found.detection["attacks"]
    assert ordinary["examples"] > 10
    assert evasive["auroc"] < ordinary["auroc"]
    assert evasive["fpr95"] >= ordinary["fpr95"]
    rejected = found.rejection
    assert rejected["calibrated_on"] == "200 known clean images"
    assert 0.0 < rejected["clean_rejected"] < 0.4
    assert rejected["clean"] < found.clean
    assert rejected["robust"] == pytest.approx(min(row["accuracy"] for row in rejected["attacks"]), abs=0.1)
    assert rejected["robust"] <= min(row["accuracy"] for row in rejected["attacks"])


def test_detection_needs_a_gaussian_head_and_an_epsilon(gaussian) -> None:
    import keras

    network, data = gaussian
    dense = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    x, y = data.x_test[:4], data.y_test[:4]
    with pytest.raises(ValueError, match="GMMHead"):
        kbl.evaluate(dense, x, y, [PGD(0.1, 0.02, 1)], detect=True)
    with pytest.raises(ValueError, match="epsilon"):
        kbl.evaluate(network, x, y, [], detect=True)
    with pytest.raises(ValueError, match=r"reject_below must be in \[0, 1\)"):
        kbl.evaluate(network, x, y, [PGD(0.1, 0.02, 1)], reject_below=1.0)
