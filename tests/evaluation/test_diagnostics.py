"""Each diagnostic fires on a network built to have that fault, and all are silent on a sound one."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.attacks import APGD, PGD, AutoAttack, Square, UniformNoise
from kbl.evaluation.diagnostics import DIAGNOSTICS, diagnose
from kbl.evaluation.probes import Probes, probe
from kbl.evaluation.result import AttackResult
from kbl.evaluation.signs import Evidence

SIDE, CLASSES = 4, 4
EPSILON = 0.1
ATTACKS = [APGD(EPSILON, 10), APGD(EPSILON, 10, loss="margin"), Square(EPSILON, 50)]


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the brightest of four quarters, some by little."""
    rng = np.random.default_rng(0)
    y = np.arange(48, dtype="int32") % CLASSES
    x = rng.uniform(0.2, 0.4, (48, SIDE, SIDE, 1))
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += rng.uniform(0.1, 0.4)
    return x.astype("float32"), y


X, Y = images_and_labels()


def network(*after, before=(), scale: float = 10.0) -> keras.Model:
    """A linear network that names the brightest quarter; sound but for what is put before or after."""
    quarters = layers.Dense(CLASSES)
    net = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *before, layers.Flatten(), quarters, *after])
    weights = np.zeros((SIDE, SIDE, CLASSES), "float32")
    for label in range(CLASSES):
        row, column = divmod(label, 2)
        weights[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, label] = scale / 4
    quarters.set_weights([weights.reshape(-1, CLASSES), np.zeros(CLASSES)])
    return net


class Same(layers.Layer):
    """A layer that keeps the shape."""

    def compute_output_shape(self, input_shape):
        return input_shape


class Stairs(Same):
    """Rounds to 32 levels: the gradient is zero everywhere."""

    def call(self, x):
        return ops.round(x * 32) / 32


class Backwards(Same):
    """Passes x on, with a gradient of the opposite sign."""

    def call(self, x):
        return 2.0 * ops.stop_gradient(x) - x


class Noise(Same):
    """Adds noise at inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), stddev=0.05, seed=self.seed)


class Neighbours(Same):
    """Subtracts the mean of the batch, as batch statistics do."""

    def call(self, x):
        return x - 0.9 * ops.mean(x, axis=0, keepdims=True)


class Half(Same):
    """Casts to half precision."""

    def call(self, x):
        return ops.cast(x, "float16")


def names(net: keras.Model, attacks=(), y=Y, **options) -> set[str]:
    return {warning["name"] for warning in kbl.evaluate(net, X, y, attacks, **options).warnings}


def test_a_sound_network_is_not_warned_of() -> None:
    result = kbl.evaluate(network(), X, Y, ATTACKS, substitute=network(scale=8.0))
    assert result.warnings == []
    assert result.checks == [diagnostic.name for diagnostic in DIAGNOSTICS]
    assert result.clean == 1.0
    assert 0.2 < result.robust < 0.9  # so the attacks had something to do


@pytest.mark.parametrize(
    ("name", "faulty"),
    [
        ("probabilities", lambda: network(layers.Softmax())),
        ("half_precision", lambda: network(Half())),
        ("random_network", lambda: network(before=[Noise()])),
        ("batch_dependence", lambda: network(before=[Neighbours()])),
        ("zero_gradients", lambda: network(before=[Stairs()])),
        ("loss_not_rising", lambda: network(before=[Backwards()])),
    ],
)
def test_each_fires_on_its_fault(name: str, faulty) -> None:
    assert name in names(faulty())


def test_a_staircase_is_climbed_without_gradients() -> None:
    assert "black_box_stronger" in names(network(before=[Stairs()]), [APGD(EPSILON, 10), Square(EPSILON, 50)])


def test_only_attacks_of_one_ball_are_compared() -> None:
    """That Square gets further in a larger ball says nothing of gradients; noise follows none, and hides nothing."""
    further = [PGD(0.05, 0.01, 10), Square(0.2, 100)]
    assert names(network(), further, diagnostics=False) == set()
    inside = AutoAttack(0.2, version="custom", attacks=tuple(further))
    assert names(network(), [inside], diagnostics=False) == set()
    noisy = [APGD(EPSILON, 10), UniformNoise(0.6), Square(EPSILON, 50)]
    assert names(network(before=[Stairs()]), noisy, diagnostics=False) == {"black_box_stronger"}


def test_the_parts_of_an_ensemble_answer_for_what_they_fooled_themselves() -> None:
    """On a staircase only Square gets on; what it fooled is not put down to the DLR that follows it."""
    dlr = APGD(EPSILON, 10, loss="dlr")
    parts = (APGD(EPSILON, 10), dlr, Square(EPSILON, 200), replace(dlr, targets=3))
    whole = AutoAttack(EPSILON, version="custom", attacks=parts)
    assert names(network(before=[Stairs()]), [whole], diagnostics=False) == {"black_box_stronger"}
    saturated = AutoAttack(EPSILON, version="custom", attacks=parts[:2])
    assert names(network(scale=5e4), [saturated], diagnostics=False) == {"cross_entropy_weaker"}


def test_a_saturated_cross_entropy() -> None:
    attacks = [APGD(EPSILON, 10), APGD(EPSILON, 10, loss="margin")]
    assert {"zero_gradients", "cross_entropy_weaker"} <= names(network(scale=5e4), attacks)


def test_a_network_that_no_change_moves() -> None:
    """It names class 0 whatever it is shown."""
    stubborn = network()
    weights, bias = stubborn.get_weights()
    stubborn.set_weights([weights, bias + np.array([50.0, 0, 0, 0])])
    assert "survives_any_change" in names(stubborn, y=np.zeros_like(Y))


def test_clean_mistakes() -> None:
    assert "clean_mistakes" in names(network(), y=(Y + 1) % CLASSES)


def test_few_classes() -> None:
    two = keras.Sequential([network(), layers.Dense(2)])
    two.layers[-1].set_weights([np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]]), np.zeros(2)])
    quick = AutoAttack(0.01, version="custom", attacks=(APGD(0.01, 3),))
    assert "few_classes" in names(two, [quick], y=Y // 2)
    assert "few_classes" not in names(network(), [quick])


def test_transfer_beats_attacks_by_gradients() -> None:
    """A staircase hides the gradient; a sound substitute shows the way."""
    attacks = [APGD(EPSILON, 10)]
    assert "black_box_stronger" in names(network(before=[Stairs()]), attacks, substitute=network())
    assert "black_box_stronger" not in names(network(), attacks, substitute=network())


def test_rounding_undoes_what_lies_between_two_grey_values() -> None:
    """Images on the 8-bit grid and an ε of a third of a grey value: every attacked pixel rounds back."""
    x = (np.round(X * 255) / 255).astype("float32")
    net = network(scale=1.0)
    margin = np.sort(kbl.attacks.predict(net, x), axis=1)
    gap = (margin[:, -1] - margin[:, -2])[:, None]
    near = x - 0.0  # move each image so near the border that a third of a grey value crosses it
    for image, label, width in zip(near, Y, gap[:, 0], strict=True):
        row, column = divmod(int(label), 2)
        image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] -= np.floor(width * 255) / 255
    right = kbl.attacks.predict(net, near).argmax(axis=1) == Y
    assert right.mean() > 0.3
    found = kbl.evaluate(net, near[right], Y[right], [PGD(0.4 / 255, 0.1 / 255, 20, loss="margin")])
    assert found.robust < 1.0
    assert "rounding" in {warning["name"] for warning in found.warnings}


def test_every_warning_says_what_it_means_and_what_to_do() -> None:
    warnings = kbl.evaluate(network(layers.Softmax()), X, Y, [], diagnostics=False).warnings
    assert [warning["name"] for warning in warnings] == ["probabilities"]
    assert {"name", "message", "remedy"} == set(warnings[0])
    for diagnostic in DIAGNOSTICS:
        assert len(diagnostic.remedy) > 20


def test_without_probes_only_what_needs_none_is_run() -> None:
    result = kbl.evaluate(network(), X, Y, [], diagnostics=False)
    assert result.checks == [d.name for d in DIAGNOSTICS if not d.needs_probes]


def test_probes_of_a_sound_network() -> None:
    found = probe(network(), X, Y, EPSILON, "linf")
    assert (found.repeated, found.zero_gradient, found.rising, found.unbounded) == (0.0, 0.0, 1.0, 0.0)
    assert found.regrouped < 1e-5
    assert found.dtype == "float32"
    assert found.scale > 0.5


def test_thresholds() -> None:
    """The figures at which the numbers give cause: 0.2 points for a black box, 2 for cross-entropy, 1 for rounding."""
    ball = {"norm": "linf", "epsilon": 0.1}
    probes = Probes(0.0, 0.0, 1.0, "float32", 0.0, 1.0, 0.0)
    sound = Evidence(np.eye(4)[Y] * 3 - 1, np.ones(1000, bool), [], 0.5, 0.5, None, probes)

    def fired(**changes) -> list[str]:
        return [warning["name"] for warning in diagnose(replace(sound, **changes))[0]]

    def of(name: str, accuracy: float, **parameters) -> AttackResult:
        return AttackResult(name, name, {**ball, **parameters}, accuracy, 1.0, worst=accuracy)

    ce, square = of("pgd", 0.6, loss="cross_entropy"), of("square", 0.5981)
    assert fired(attacks=[ce, square]) == []
    assert fired(attacks=[ce, replace(square, accuracy=0.5979)]) == ["black_box_stronger"]
    assert fired(attacks=[ce, replace(square, accuracy=0.595)], right=np.ones(200, bool)) == []  # one image
    assert fired(attacks=[ce, replace(square, accuracy=0.59)], right=np.ones(200, bool)) == [
        "black_box_stronger"
    ]
    assert fired(attacks=[ce], transfer=0.4981) == []
    assert fired(attacks=[ce], transfer=0.4979) == ["black_box_stronger"]
    assert fired(attacks=[ce, of("apgd", 0.581, loss="dlr")]) == []
    assert fired(attacks=[ce, of("apgd", 0.579, loss="dlr")]) == ["cross_entropy_weaker"]
    assert fired(rounded=0.5099) == []
    assert fired(rounded=0.5101) == ["rounding"]
    whole = replace(of("autoattack", 0.5), parts=[of("apgd", 0.6, loss="cross_entropy"), of("square", 0.59)])
    assert fired(attacks=[whole]) == ["black_box_stronger"]
    three, auto = np.eye(3)[Y % 3] * 3 - 1, of("autoattack", 0.5)
    assert fired(attacks=[auto]) == []
    assert fired(attacks=[auto], logits=three) == ["few_classes"]
    assert fired(probes=replace(probes, zero_gradient=0.001)) == ["zero_gradients"]
    assert fired(probes=replace(probes, unbounded=0.06)) == ["survives_any_change"]
    assert fired(probes=replace(probes, rising=0.89)) == ["loss_not_rising"]
    assert fired(probes=replace(probes, dtype="bfloat16")) == ["half_precision"]
