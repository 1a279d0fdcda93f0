"""The judge: worst case over attacks, its JSON, and what makes it warn."""

import functools
import json
import math
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.attacks import BIM, FAB, FGSM, AutoAttack, predict
from kbl.evaluation import Result, versions

SPREAD = 16

# These toys are no sound networks; tests/evaluation/test_diagnostics.py is about that.
evaluate = functools.partial(kbl.evaluate, diagnostics=False)


@keras.saving.register_keras_serializable(package="tests")
class TwoKinds(layers.Layer):
    """Logits 0 and f of 18 pixels: a flag, one pixel that alone decides where the flag is up, 16 that do elsewhere."""

    def call(self, x):
        alone = x[:, 1] - 0.5
        together = ops.mean(x[:, 2:], axis=1) - 0.38
        wrong = ops.where(x[:, 0] > 0.5, alone, together)
        return ops.stack([ops.zeros_like(wrong), wrong], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2)


def image(flag: float, pixel: float, others: float) -> np.ndarray:
    return np.array([flag, pixel] + [others] * SPREAD, "float32")


# L∞ 0.1 moves every pixel by 0.1; L2 0.25 moves one by 0.25 or sixteen by 0.0625 each.
LINF = BIM(0.1, 0.05, 4)
L2 = BIM(0.25, 0.125, 4, norm="l2")
IMAGES = np.stack(
    [
        image(1, 0.3, 0.3),  # 0.2 from the border along one pixel: the L2 attack's
        image(0, 0.3, 0.3),  # 0.08 along sixteen: the L∞ attack's
        image(1, 0.9, 0.3),  # wrong unattacked
        image(1, 0.1, 0.3),  # out of reach of both
    ]
)
Y = np.zeros(4, "int32")


@pytest.fixture(scope="module")
def network():
    return keras.Sequential([keras.Input((2 + SPREAD,)), TwoKinds()])


@pytest.fixture(scope="module")
def result(network):
    return evaluate(network, IMAGES, Y, [LINF, ("mine", L2)], epsilons=[0.0, 0.05, 0.1, 0.45], batch_size=3)


def test_worst_case_is_taken_image_by_image(result) -> None:
    assert (result.clean, result.robust, result.examples) == (0.75, 0.25, 4)
    assert [attack.accuracy for attack in result.attacks] == [0.5, 0.5]
    assert [(attack.name, attack.label) for attack in result.attacks] == [("bim", "BIM-4"), ("bim", "mine")]
    assert result.warnings == []


def test_order_of_attacks_and_batches_change_nothing(network, result) -> None:
    other = evaluate(network, IMAGES, np.eye(2)[Y], [L2, LINF], batch_size=1)
    assert (other.clean, other.robust) == (result.clean, result.robust)
    assert [attack.accuracy for attack in other.attacks] == [0.5, 0.5]


def test_curve_is_of_the_first_attack(result) -> None:
    """The second image falls from 0.08 on, the first from 0.2, the fourth from 0.4."""
    points = [(0.0, 0.75), (0.05, 0.75), (0.1, 0.5), (0.45, 0.0)]
    assert result.epsilon_curve == [
        {"epsilon": epsilon, "accuracy": accuracy, "attack": "BIM-4"} for epsilon, accuracy in points
    ]


def test_curve_is_of_an_ensembles_first_part_of_steps(network) -> None:
    """What is made for a Gaussian head and what has one step are passed over."""
    ensemble = AutoAttack(0.1, version="custom", attacks=(FGSM(0.1), LINF))
    attacks = [replace(L2, name="adaptive"), ("whole", ensemble), L2]
    found = evaluate(network, IMAGES, Y, attacks, epsilons=[0.1])
    assert found.epsilon_curve == [{"epsilon": 0.1, "accuracy": 0.5, "attack": "BIM-4"}]  # of L2 0.75


def test_a_curve_needs_an_attack_of_steps(network) -> None:
    assert evaluate(network, IMAGES, Y, [FGSM(0.1)], epsilons=[0.1]).epsilon_curve == []


def test_parts_of_an_ensemble_try_what_the_earlier_ones_left(network) -> None:
    """The first fools the second image, so the second has the first, which it fools, and the fourth."""
    ensemble = AutoAttack(0.21, version="custom", attacks=(LINF, BIM(0.21, 0.1, 4)))
    (whole,) = evaluate(network, IMAGES, Y, [ensemble]).attacks
    first, second = whole.parts
    assert [(part.accuracy, part.attacked) for part in whole.parts] == [(0.5, 3), (0.25, 2)]
    assert (whole.accuracy, whole.worst, whole.attacked) == (0.25, 0.25, 3)
    assert whole.forward == first.forward + second.forward
    assert whole.backward == first.backward + second.backward > first.backward > 0
    assert whole.seconds == pytest.approx(first.seconds + second.seconds)


def test_the_median_distance_counts_what_was_not_fooled_as_infinite() -> None:
    """The border is at 0.5 of the second pixel if the first is dark; if that is bright, the logits are constant."""

    @keras.saving.register_keras_serializable(package="tests")
    class Stubborn(TwoKinds):
        def call(self, x):
            wrong = ops.where(x[:, 0] > 0.5, -1.0, x[:, 1] - 0.5)
            return ops.stack([ops.zeros_like(wrong), wrong], axis=1)

    net = keras.Sequential([keras.Input((2,)), Stubborn()])
    x = np.array(
        [[0.0, 0.3], [0.0, 0.2], [1.0, 0.2], [1.0, 0.3], [0.0, 0.9]], "float32"
    )  # the last is a mistake
    y = np.zeros(5, "int32")

    def median(*rows: int) -> float | None:
        (found,) = evaluate(net, x[list(rows)], y[list(rows)], [FAB(steps=10)]).attacks
        assert found.worst is None
        return found.distance["median"]

    assert median(0, 1, 2, 4) == pytest.approx(0.3, abs=1e-3)
    assert median(0, 2, 3, 4) is None


def test_transfer_takes_every_step_and_the_worst_case() -> None:
    """The substitute is fooled at 0.35, after a step; the network at 0.5, by the steps that come after."""

    def border(at: float) -> keras.Model:
        net = keras.Sequential([keras.Input((1,)), layers.Dense(2)])
        net.set_weights([np.array([[0.0, 1.0]]), np.array([0.0, -at])])
        return net

    attacks = [BIM(0.25, 0.06, 4), BIM(0.01, 0.01, 1)]
    x = np.array([[0.3], [0.1]], "float32")
    found = evaluate(border(0.5), x, np.zeros(2, "int32"), attacks, substitute=border(0.35)).transfer
    assert [attack["accuracy"] for attack in found["attacks"]] == [0.5, 1.0]
    assert [attack["worst"] for attack in found["attacks"]] == [0.5, 0.5]
    assert found["robust"] == 0.5


def test_without_attacks_robust_is_clean(network) -> None:
    found = evaluate(network, IMAGES, Y, [])
    assert (found.clean, found.robust, found.attacks) == (0.75, 0.75, [])


def test_targeted_attacks_aim_at_the_likeliest_other_class() -> None:
    """At 0.2 class 2 is second and never first, though class 1 could be reached; at 0.5 class 1 is second."""
    net = keras.Sequential([keras.Input((1,)), layers.Dense(3)])
    net.set_weights([np.array([[0.0, 10.0, 0.0]]), np.array([0.0, -5.5, -3.0])])
    x, y = np.array([[0.2], [0.5]], "float32"), np.array([0, 0])
    radius = {"epsilon": 0.4, "step_size": 0.2, "steps": 3}
    found = evaluate(net, x, y, [BIM(**radius, targeted=True), BIM(**radius)])
    assert found.clean == 1.0
    assert [attack.accuracy for attack in found.attacks] == [0.5, 0.0]


def test_progress_is_told(network) -> None:
    seen = []
    evaluate(
        network, IMAGES, Y, [LINF], batch_size=2, progress=lambda label, state: seen.append((label, state))
    )
    assert {label for label, _ in seen} == {"BIM-4"}
    assert (seen[-1][1].done, seen[-1][1].total, seen[-1][1].standing) == (3, 3, 2)


# JSON.


def test_json_round_trip(result, tmp_path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(result.to_json(), encoding="utf-8")
    assert Result.load(path) == result
    assert Result.from_dict(result.to_dict()) == result


def test_json_of_radii_that_are_numpys(network) -> None:
    radii = np.linspace(0.0, 0.25, 2, dtype="float32")
    given = {"epsilon": np.float32(0.25), "epsilons": radii, "diagnostics": False}
    found = kbl.evaluate(network, IMAGES, Y, [LINF], **given)
    assert [point["epsilon"] for point in json.loads(found.to_json())["epsilon_curve"]] == [0.0, 0.25]
    flat = keras.Sequential([keras.Input((3, 6, 1)), layers.Flatten(), TwoKinds()])
    images = IMAGES.reshape(-1, 3, 6, 1)
    wrong = kbl.evaluate(flat, images, 1 - predict(flat, images).argmax(axis=1), "standard", **given)
    assert json.loads(wrong.to_json())["attacks"][0]["parameters"]["epsilon"] == 0.25


def test_json_keys(result) -> None:
    """What others read: a new key may come, none of these may go."""
    content = json.loads(result.to_json())
    assert content["schema"] == 2
    assert content["backend"] == keras.config.backend()
    assert (content["examples"], content["clean"], content["robust"]) == (4, 0.75, 0.25)
    keys = {"schema", "backend", "examples", "clean", "robust", "attacks", "warnings", "versions"}
    keys |= {"checks", "transfer", "detection", "rejection", "certified", "intervals"}
    assert set(content) == keys | {"epsilon_curve", "seconds"}
    assert content["intervals"]["clean"] == pytest.approx([0.30, 0.95], abs=0.01)  # Wilson's for 3 of 4
    for attack in content["attacks"]:
        keys = {
            "name",
            "label",
            "parameters",
            "accuracy",
            "seconds",
            "attacked",
            "worst",
            "forward",
            "backward",
        }
        assert set(attack) == keys | {"distance", "parts"}
        assert (attack["attacked"], attack["forward"] > attack["backward"] > 0) == (3, True)
        assert attack["seconds"] > 0
    assert content["attacks"][1]["parameters"] == {
        "epsilon": 0.25,
        "step_size": 0.125,
        "steps": 4,
        "restarts": 1,
        "random_start": False,
        "norm": "l2",
        "loss": "cross_entropy",
        "kappa": None,
        "targeted": False,
        "early_stop": True,
    }
    assert content["versions"]["kbl"] in (kbl.__version__, "unknown")
    assert content["versions"]["keras"] == keras.__version__
    assert content["versions"]["numpy"] == np.__version__
    assert content["versions"][keras.config.backend()] != "unknown"
    assert content["versions"] == versions()
    assert content["seconds"] > sum(attack["seconds"] for attack in content["attacks"])


def test_the_first_schema_is_read(result) -> None:
    content = {
        key: value
        for key, value in result.to_dict().items()
        if key in ("backend", "examples", "clean", "robust")
    }
    attack = {"name": "pgd", "label": "PGD", "parameters": {}, "accuracy": 0.5, "seconds": 1.0}
    found = Result.from_dict({**content, "schema": 1, "attacks": [attack]})
    assert (found.robust, found.attacks[0].accuracy, found.attacks[0].parts) == (0.25, 0.5, [])


@pytest.mark.parametrize("schema", [None, 3, "1"])
def test_another_schema_is_refused(result, schema) -> None:
    with pytest.raises(ValueError, match=rf"Expected schema 2\. Received: schema={schema!r}"):
        Result.from_dict({**result.to_dict(), "schema": schema})


# Warnings.


def linear(scale: float, *after: layers.Layer) -> keras.Model:
    net = keras.Sequential([keras.Input((2,)), layers.Dense(3), *after])
    net.layers[0].set_weights([scale * np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, -1.0]]), np.zeros(3)])
    return net


X2 = np.array([[0.6, 0.5], [0.4, 0.5]], "float32")
Y2 = np.array([0, 1])


def test_probabilities_are_warned_of() -> None:
    found = evaluate(linear(1.0, layers.Softmax()), X2, Y2, [FGSM(0.01)])
    (warning,) = found.warnings
    assert warning["name"] == "probabilities"
    assert "softmax" in warning["message"]
    assert "without its softmax" in warning["remedy"]
    assert evaluate(linear(1.0), X2, Y2, [FGSM(0.01)]).warnings == []


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_a_saturated_cross_entropy_is_warned_of(loss) -> None:
    """Logits of ±10,000 leave cross-entropy a gradient of exactly 0; the margin's is as ever."""
    net, radius = linear(1e5), {"epsilon": 0.2, "step_size": 0.1, "steps": 3}
    other = BIM(**radius, loss=loss)
    found = evaluate(net, X2, Y2, [BIM(**radius), other])
    assert [attack.accuracy for attack in found.attacks] == [1.0, 0.0]
    assert found.robust == 0.0
    (warning,) = found.warnings
    assert warning["name"] == "cross_entropy_weaker"
    assert "100.0 points higher" in warning["message"]
    assert evaluate(linear(1.0), X2, Y2, [BIM(**radius), other]).warnings == []


def test_only_attacks_of_one_ball_are_compared() -> None:
    """That the margin gets further in a larger ball says nothing of cross-entropy."""
    net = linear(1.0)
    found = evaluate(net, X2, Y2, [BIM(0.01, 0.01, 2), BIM(0.2, 0.1, 3, loss="margin")])
    assert [attack.accuracy for attack in found.attacks] == [1.0, 0.0]
    assert found.warnings == []


def test_transfer_is_compared_with_the_worst_case_image_by_image(network) -> None:
    """Crafted on the network itself two attacks fool together more than each alone: that is no sign of anything."""
    images, y = np.repeat(IMAGES, 10, axis=0), np.repeat(Y, 10)
    found = evaluate(network, images, y, [LINF, L2], substitute=network)
    assert found.transfer["robust"] == found.robust == 0.25
    assert found.warnings == []


def test_other_warnings_pass_through() -> None:
    @keras.saving.register_keras_serializable(package="tests")
    class Talking(layers.Layer):
        def call(self, x):
            warnings.warn("of my own", RuntimeWarning, stacklevel=2)
            return x

    with pytest.warns(RuntimeWarning, match="of my own"):
        net = linear(1.0, Talking())
    with pytest.warns(RuntimeWarning, match="of my own"):
        found = evaluate(net, X2, Y2, [])
    assert found.warnings == []


def test_wrong_input_is_refused(network) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        evaluate(network, IMAGES * 255, Y, [])
    with pytest.raises(ValueError, match="label for each of the 4 images"):
        evaluate(network, IMAGES, Y[:3], [])
    with pytest.raises(ValueError, match="classes 0 to 1"):
        evaluate(network, IMAGES, Y + 2, [])
    for attacks in ("best", LINF, ["standard"], None):
        with pytest.raises(ValueError, match='attacks must be a list of attacks or "standard"'):
            evaluate(network, IMAGES, Y, attacks)
    assert math.isclose(evaluate(network, IMAGES, Y, []).clean, 0.75)
