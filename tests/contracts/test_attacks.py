"""What every attack promises, on every kind of network."""

import functools
import gc
import itertools
import weakref
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend, random
from kbl.attacks import BIM, FGSM, PGD, AttackWarning, Progress, predict
from kbl.layers import GMMHead

BACKEND = keras.backend.backend()
EPSILON = {"linf": 0.12, "l2": 0.6}
CLASSES = 3
SEED = 38  # of its networks each attack fools some images and leaves some


def pgd(**fields) -> PGD:
    norm = fields.get("norm", "linf")
    return PGD(**{"epsilon": EPSILON[norm], "step_size": EPSILON[norm] / 3, "steps": 5, **fields})


ATTACKS = {
    "fgsm": FGSM(EPSILON["linf"]),
    "fgsm targeted": FGSM(EPSILON["linf"], targeted=True),
    "fgsm l2": FGSM(EPSILON["l2"], norm="l2"),
    "bim": BIM(EPSILON["linf"], 0.04, 5),
    "pgd targeted": pgd(targeted=True),
    "pgd late": pgd(early_stop=False),
    "pgd restarts": pgd(restarts=3),
    **{
        f"pgd {norm} {loss}": pgd(norm=norm, loss=loss)
        for norm in ("linf", "l2")
        for loss in ("cross_entropy", "margin", "dlr", "likelihood")
    },
}
# Every attack on one network, and on the others those that could fare differently there.
TABLE = [("dense", name) for name in ATTACKS]
TABLE += [("gmm", f"pgd linf {loss}") for loss in ("cross_entropy", "margin", "dlr", "likelihood")]
TABLE += [("gmm", name) for name in ("fgsm", "pgd restarts", "pgd l2 likelihood")]
TABLE += [("batch norm", name) for name in ("fgsm", "pgd targeted", "pgd late", "pgd l2 cross_entropy")]


def network_of(kind: str) -> keras.Model:
    """A tiny network with the same weights on every backend."""
    head = GMMHead(CLASSES) if kind == "gmm" else layers.Dense(CLASSES)
    body = [layers.Conv2D(4, 3, strides=2, padding="same")]
    if kind == "batch norm":
        body += [layers.BatchNormalization(), layers.Activation("relu"), layers.Dropout(0.5, seed=3)]
    else:
        body += [layers.Activation("relu")]
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), *body, layers.Flatten(), layers.Dense(8, activation="relu"), head]
    )
    rng = np.random.default_rng(SEED)
    for weight in network.weights:
        if "seed" in weight.name:
            continue
        if weight.name == "moving_variance":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(size=weight.shape) * (0.5 if len(weight.shape) > 1 else 0.1))
    return network


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).random((13, 6, 6, 1)).astype("float32")


def answers(network: keras.Model, x: np.ndarray) -> np.ndarray:
    """The classes that the network names; in batches of one shape, since each compiles anew."""
    return predict(network, x, batch_size=8).argmax(axis=1)


def labels_of(network: keras.Model, x: np.ndarray) -> np.ndarray:
    """The network's own answers, but for every fifth image: a clean mistake."""
    y = answers(network, x)
    y[::5] = (y[::5] + 1) % CLASSES
    return y


def state_of(network: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v) for v in network.variables]


def flags_of(network: keras.Model) -> list[bool]:
    flags = [layer.trainable for layer in network.layers] + [v.trainable for v in network.variables]
    if BACKEND == "torch":
        flags += [parameter.requires_grad for parameter in network.parameters()]
    return flags


def global_noise() -> list:
    draws = [ops.convert_to_numpy(keras.random.uniform((3,))), np.random.random(3)]
    if BACKEND == "torch":
        import torch

        draws.append(torch.rand(3).numpy())
    return draws


@dataclass
class Outcome:
    network: keras.Model
    x: np.ndarray
    y: np.ndarray
    x_adv: np.ndarray
    before: tuple
    after: tuple

    @property
    def reached(self) -> np.ndarray:
        """Which images the attack may call a success, from a new prediction of what it returned."""
        return answers(self.network, self.x_adv) == self.y


@functools.cache
def network_and_labels(kind: str) -> tuple[keras.Model, np.ndarray]:
    network = network_of(kind)
    network.layers[0].trainable = False  # a flag to be kept
    x = np.random.default_rng(1).random((13, 6, 6, 1)).astype("float32")
    return network, labels_of(network, x)


@functools.cache
def outcome(kind: str, name: str) -> Outcome:
    x = np.random.default_rng(1).random((13, 6, 6, 1)).astype("float32")
    network, y = network_and_labels(kind)
    if ATTACKS[name].targeted:
        y, mistaken = (y + 1) % CLASSES, y
        y[::5] = (mistaken[::5] - 1) % CLASSES  # every fifth image is on target from the start
    before = state_of(network), flags_of(network)
    x_before = x.copy()
    x_adv = ATTACKS[name](network, x, y, seed=2, batch_size=8)
    np.testing.assert_array_equal(x, x_before)
    return Outcome(network, x, y, x_adv, before, (state_of(network), flags_of(network)))


every_outcome = pytest.mark.parametrize(("kind", "name"), TABLE)


@every_outcome
def test_inside_the_ball_and_the_cube_in_exact_arithmetic(kind: str, name: str) -> None:
    result, attack = outcome(kind, name), ATTACKS[name]
    assert result.x_adv.shape == result.x.shape
    assert result.x_adv.dtype == "float32"
    assert np.isfinite(result.x_adv).all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    offset = (result.x_adv.astype("float64") - result.x).reshape(len(result.x), -1)
    length = np.abs(offset).max(axis=1) if attack.norm == "linf" else np.sqrt((offset**2).sum(axis=1))
    assert (length <= attack.epsilon).all()
    assert length.max() > attack.epsilon / 4  # it does go somewhere


@every_outcome
def test_never_weaker_than_the_clean_start(kind: str, name: str) -> None:
    result, targeted = outcome(kind, name), ATTACKS[name].targeted
    clean = answers(result.network, result.x) == result.y
    if targeted:
        assert (result.reached >= clean).all()
        assert result.reached.sum() > clean.sum()
    else:
        assert (result.reached <= clean).all()
        assert result.reached.sum() < clean.sum()
        if ATTACKS[name].random_start:  # a clean mistake is one already: the image is left as it is
            np.testing.assert_array_equal(result.x_adv[~clean], result.x[~clean])


@every_outcome
def test_the_network_is_left_as_it_was(kind: str, name: str) -> None:
    result = outcome(kind, name)
    (values, flags), (values_after, flags_after) = result.before, result.after
    assert flags_after == flags
    for value, value_after in zip(values, values_after, strict=True):
        np.testing.assert_array_equal(value_after, value)


def test_the_batch_normalization_and_seeds_are_among_what_was_compared() -> None:
    names = {v.name for v in network_and_labels("batch norm")[0].variables}
    assert {"moving_mean", "moving_variance", "seed_generator_state"} <= names


def test_global_random_states_are_left_as_they_were(images) -> None:
    network, y = network_and_labels("batch norm")
    keras.utils.set_random_seed(3)
    expected = global_noise()
    keras.utils.set_random_seed(3)
    pgd(restarts=2)(network, images, y, seed=2, batch_size=8)
    for noise, kept in zip(global_noise(), expected, strict=True):
        np.testing.assert_array_equal(noise, kept)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("early_stop", [True, False])
def test_more_steps_never_leave_more_images_right(norm: str, early_stop: bool, images) -> None:
    network, y = network_and_labels("dense")
    attack = pgd(norm=norm, early_stop=early_stop, step_size=EPSILON[norm] / 10)
    right = [
        predict(network, replace(attack, steps=steps)(network, images, y, batch_size=8)).argmax(axis=1) == y
        for steps in (1, 2, 4, 8, 16)
    ]
    for fewer, more in itertools.pairwise(right):
        assert (more <= fewer).all()
    assert right[-1].sum() < right[0].sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_restarts_never_leave_more_images_right(norm: str, images) -> None:
    """One step from a random point: which images fall is a matter of luck, and restarts collect it."""
    network, y = network_and_labels("dense")
    attack = pgd(norm=norm, step_size=EPSILON[norm] / 100, steps=1, epsilon=2 * EPSILON[norm])
    right = [
        predict(network, replace(attack, restarts=restarts)(network, images, y, batch_size=8)).argmax(axis=1)
        == y
        for restarts in (1, 2, 4, 12)
    ]
    for fewer, more in itertools.pairwise(right):
        assert (more <= fewer).all()
    assert right[-1].sum() < right[0].sum()


# Planted adversarial examples: on a linear network the worst case is known.


@functools.cache
def linear_layer() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)])


def linear_network(weights: np.ndarray, bias: float, scale: float = 1.0) -> keras.Model:
    """Logits (-t/2, t/2, far below) with t = scale·(w·x + b); the third class only makes DLR possible."""
    network = linear_layer()  # one for all tests: only the weights change, so nothing compiles anew
    kernel = np.stack([-weights / 2, weights / 2, np.zeros(16)], axis=1) * scale
    network.layers[-1].set_weights([kernel, np.array([-bias / 2, bias / 2, -100]) * scale])
    return network


@pytest.fixture(scope="module")
def linear() -> tuple[np.ndarray, float, np.ndarray]:
    rng = np.random.default_rng(7)
    weights = rng.normal(size=16)
    x = rng.random((40, 4, 4, 1)).astype("float32")
    return weights, -float(weights.sum() / 2), x


def check_planted(attack: PGD, network: keras.Model, x: np.ndarray, t: np.ndarray, reach: np.ndarray) -> None:
    """T is w·x + b, reach how far the ball lets it fall (in absolute value): fooled are those with |t| < reach."""
    y = (t > 0).astype("int32")
    assert (answers(network, x) == y).all()
    assert np.abs(np.abs(t) - reach).min() > 2e-4 * reach.min()  # no image on the edge
    expected = np.abs(t) < reach
    assert 5 < expected.sum() < 35
    labels, goal = (1 - y, True) if attack.targeted else (y, False)
    fooled = (predict(network, attack(network, x, labels, batch_size=8)).argmax(axis=1) == labels) == goal
    np.testing.assert_array_equal(fooled, expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "likelihood"])
@pytest.mark.parametrize("random_start", [True, False])
def test_finds_what_linf_allows(loss: str, random_start: bool, linear) -> None:
    """Each pixel moves by ε against its weight, or as far as [0, 1] lets it."""
    weights, bias, x = linear
    flat = x.reshape(40, 16).astype("float64")
    t = flat @ weights + bias
    epsilon = 0.1
    direction = -np.sign(t)[:, None] * np.sign(weights)
    room = np.where(direction > 0, 1 - flat, flat)
    reach = (np.abs(weights) * np.minimum(epsilon, room)).sum(axis=1)
    assert (room < epsilon).any()
    attack = PGD(epsilon, 0.05, 4, loss=loss, random_start=random_start)
    check_planted(attack, linear_network(weights, bias), x, t, reach)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "likelihood"])
@pytest.mark.parametrize("random_start", [True, False])
def test_finds_what_l2_allows(loss: str, random_start: bool, linear) -> None:
    """Images away from 0 and 1, so that the worst case is ε along the weights."""
    weights, bias, x = linear
    x = (0.4 + 0.2 * x).astype("float32")
    t = x.reshape(40, 16).astype("float64") @ weights + bias
    epsilon = float(np.median(np.abs(t)) / np.linalg.norm(weights)) * 1.001
    reach = np.full(40, epsilon * np.linalg.norm(weights))
    assert 0.02 < epsilon < 0.3
    attack = PGD(epsilon, epsilon, 4, loss=loss, norm="l2", random_start=random_start)
    check_planted(attack, linear_network(weights, bias), x, t, reach)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("make", ["fgsm", "targeted", "late"])
def test_other_forms_find_it_too(norm: str, make: str, linear) -> None:
    weights, bias, x = linear
    x = (0.4 + 0.2 * x).astype("float32")
    t = x.reshape(40, 16).astype("float64") @ weights + bias
    length = np.abs(weights).sum() if norm == "linf" else np.linalg.norm(weights)
    epsilon = float(np.median(np.abs(t)) / length) * 1.001
    attack = {
        "fgsm": FGSM(epsilon, norm=norm),
        "targeted": PGD(epsilon, epsilon, 3, norm=norm, targeted=True),
        "late": PGD(epsilon, epsilon, 3, norm=norm, early_stop=False),
    }[make]
    check_planted(attack, linear_network(weights, bias), x, t, np.full(40, epsilon * length))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_saturated_cross_entropy_still_has_a_direction(norm: str, linear) -> None:
    """Logits 60 apart: the gradient of the cross-entropy is about e⁻⁶⁰, whose square is 0 in float32."""
    weights, bias, x = linear
    x = (0.4 + 0.2 * x).astype("float32")
    t = x.reshape(40, 16).astype("float64") @ weights + bias
    length = np.abs(weights).sum() if norm == "linf" else np.linalg.norm(weights)
    epsilon = float(np.median(np.abs(t)) / length) * 1.001
    network = linear_network(weights, bias, scale=60 / np.median(np.abs(t)))
    attack = PGD(epsilon, epsilon, 2, norm=norm, random_start=False)
    check_planted(attack, network, x, t, np.full(40, epsilon * length))


# Edges.


@pytest.mark.parametrize("name", ["fgsm", "fgsm l2", "pgd targeted", "pgd late", "pgd l2 cross_entropy"])
def test_epsilon_zero_returns_the_images(name: str, images) -> None:
    network, y = network_and_labels("dense")
    x_adv = replace(ATTACKS[name], epsilon=0)(network, images, y, batch_size=8)
    np.testing.assert_array_equal(x_adv, images)


def test_one_image_none_and_a_rest(images) -> None:
    network, y = network_and_labels("dense")
    attack = pgd()
    whole = attack(network, images, y, batch_size=8)
    np.testing.assert_allclose(attack(network, images[:1], y[:1]), whole[:1], atol=1e-6)
    np.testing.assert_allclose(attack(network, images[:3], y[:3], batch_size=8), whole[:3], atol=1e-6)
    nothing = attack(network, images[:0], y[:0])
    assert nothing.shape == (0, 6, 6, 1)
    assert isinstance(nothing, np.ndarray)
    assert predict(network, images[:0]).shape == (0, CLASSES)
    assert predict(network, images, batch_size=8).shape == (13, CLASSES)
    np.testing.assert_allclose(
        predict(network, images, batch_size=8), ops.convert_to_numpy(network(images)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_batch_size_does_not_matter(norm: str, images) -> None:
    network, y = network_and_labels("dense")
    attack = pgd(norm=norm, restarts=2)
    results = [attack(network, images, y, seed=1, batch_size=size) for size in (8, 3, 64)]
    masks = [answers(network, x_adv) == y for x_adv in results]
    for x_adv, mask in zip(results[1:], masks[1:], strict=True):
        np.testing.assert_array_equal(mask, masks[0])
        assert (np.abs(x_adv - results[0]) < 1e-5).mean() > 0.98


def test_an_image_depends_on_its_place_alone(images) -> None:
    """The other images may change; its own random numbers do not."""
    network, y = network_and_labels("dense")
    attack = pgd()
    expected = attack(network, images, y, batch_size=8)
    other = images.copy()
    other[[0, 2, 9]] = images[[9, 0, 2]]
    kept = [i for i in range(13) if i not in (0, 2, 9)]
    np.testing.assert_allclose(attack(network, other, y, batch_size=8)[kept], expected[kept], atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_seeds(norm: str, images) -> None:
    network, y = network_and_labels("dense")
    attack = pgd(norm=norm, step_size=EPSILON[norm] / 50)
    first = attack(network, images, y, seed=1, batch_size=8)
    np.testing.assert_array_equal(attack(network, images, y, seed=1, batch_size=8), first)
    right = answers(network, images) == y
    other = attack(network, images, y, seed=2, batch_size=8)
    assert (np.abs(other - first).reshape(13, -1).max(axis=1) > EPSILON[norm] / 20)[right].all()
    still = FGSM(EPSILON[norm], norm=norm)  # nothing random in it
    np.testing.assert_array_equal(
        still(network, images, y, seed=1, batch_size=8), still(network, images, y, seed=2, batch_size=8)
    )


def test_random_starts_are_the_same_on_every_backend(images) -> None:
    """A constant network moves nothing: what comes back is the start, of `kbl.random`'s bits."""
    network = constant_network()
    x_adv = PGD(0.05, 0.01, 2)(network, 0.3 + 0.4 * images, np.zeros(13, "int32"), seed=4)
    bits = random.uniform(random.key(4, 0), np.arange(13, dtype="int32"), (6, 6, 1))
    expected = 0.3 + 0.4 * images + 0.05 * (2 * ops.convert_to_numpy(bits) - 1)
    np.testing.assert_allclose(x_adv, expected, atol=2e-7)


def test_tensors_in_tensors_out(images) -> None:
    network, y = network_and_labels("dense")
    expected = pgd()(network, images, y, batch_size=8)
    assert isinstance(expected, np.ndarray)
    x_adv = pgd()(network, ops.convert_to_tensor(images), ops.convert_to_tensor(y), batch_size=8)
    assert ops.is_tensor(x_adv)
    np.testing.assert_array_equal(ops.convert_to_numpy(x_adv), expected)
    doubles = pgd()(network, images.astype("float64"), y.astype("int64"), batch_size=8)
    assert doubles.dtype == "float32"
    np.testing.assert_array_equal(doubles, expected)


@pytest.mark.parametrize("targeted", [False, True])
def test_labels_in_every_form(targeted: bool, images) -> None:
    network, y = network_and_labels("dense")
    attack = pgd(targeted=targeted)
    expected = attack(network, images, y, batch_size=8)
    for form in (
        np.eye(CLASSES)[y],
        np.eye(CLASSES, dtype="int64")[y],
        y[:, None],
        y.astype("float32"),
        y.tolist(),
    ):
        np.testing.assert_array_equal(attack(network, images, form, batch_size=8), expected)


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_fooled_image_is_returned_even_where_its_loss_is_smaller(early_stop: bool, images) -> None:
    """The likelihood can be lower at a point that is still classified rightly, within a start or in an earlier one."""
    network, y = network_and_labels("gmm")
    attack = pgd(loss="likelihood", steps=3, step_size=0.1, epsilon=0.3, restarts=12, early_stop=early_stop)
    seen: list[Progress] = []
    x_adv = attack(network, images, y, batch_size=8, progress=seen.append)
    assert seen[-1].standing == int((answers(network, x_adv) == y).sum())
    assert seen[-1].standing < seen[0].standing


def test_progress(images) -> None:
    network, y = network_and_labels("dense")
    seen: list[Progress] = []
    x_adv = pgd(restarts=2, epsilon=0.01, step_size=0.001)(
        network, images, y, batch_size=4, progress=seen.append
    )
    assert {p.total for p in seen} == {len(images)}
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert 0 < seen[0].done < len(images) == seen[-1].done
    assert seen[0].standing >= seen[-1].standing == int((answers(network, x_adv) == y).sum())


# Faults.


def counting_network(units: int = CLASSES, **arguments) -> tuple[keras.Model, list[int]]:
    """A network and the list that grows at each pass through Python: each trace of a graph, each call on torch."""
    count: list[int] = []

    class Count(layers.Layer):
        def call(self, x):
            count.append(1)
            return x

    network = keras.Sequential(
        [keras.Input((6, 6, 1)), Count(), layers.Flatten(), layers.Dense(units, **arguments)]
    )
    rng = np.random.default_rng(2)
    network.layers[-1].set_weights([rng.normal(size=(36, units)), np.zeros(units)])
    count.clear()
    return network, count


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 6, 6, 1), "uint8"), "^x must hold floats.*divide 8-bit pixels by 255.*uint8"),
        (np.full((2, 6, 6, 1), np.nan), "^x must be finite. Received: 72 NaN"),
        (np.full((2, 6, 6, 1), np.inf), "^x must be finite"),
        (np.full((2, 6, 6, 1), 255.0), r"^x must lie in \[0, 1\].*from 255 to 255"),
        (np.full((2, 6, 6, 1), -1e-3), r"^x must lie in \[0, 1\].*from -0.001"),
        (np.zeros(5), r"^x must be a batch of images.*Received: shape \(5,\)"),
    ],
)
def test_bad_images_cost_no_forward_pass(x, message: str) -> None:
    network, count = counting_network()
    for attack in (FGSM(0.1), pgd(norm="l2", targeted=True)):
        with pytest.raises(ValueError, match=message):
            attack(network, x, np.zeros(2, "int32"))
    assert count == []


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 3]), "^y must hold classes 0 to 2, as the network has 3 outputs.*from 0 to 3"),
        (np.array([-1, 0]), "^y must hold classes 0 to 2.*from -1 to 0"),
        (np.array([0.5, 1]), "^y must hold whole class numbers"),
        (np.array([np.nan, 1]), "^y must hold whole class numbers"),
        (np.array([0, 1, 2]), r"^y must hold a label for each of the 2 images.*Received: shape \(3,\)"),
        (np.array(1), r"^y must hold a label for each.*Received: shape \(\)"),
        (np.zeros((2, 4)), r"^y must hold a label for each.*Received: shape \(2, 4\)"),
        (np.zeros((2, 1, 1)), r"^y must hold a label for each.*Received: shape \(2, 1, 1\)"),
        (np.full((2, 3), 1 / 3), "^y has K columns but its rows are not one-hot"),
        (np.array([[1, 1, 0], [0, 0, 1]]), "^y has K columns but its rows are not one-hot"),
        (np.array([[2, -1, 0], [0, 0, 1]]), "^y has K columns but its rows are not one-hot"),
        (np.eye(3), r"^y must hold a label for each of the 2 images.*Received: shape \(3, 3\)"),
    ],
)
def test_bad_labels(y, message: str) -> None:
    network, count = counting_network()
    with pytest.raises(ValueError, match=message):
        pgd()(network, np.zeros((2, 6, 6, 1), "float32"), y)
    assert len(count) <= 1  # the pass of at most eight images that tells the number of classes


def test_bad_batch_size() -> None:
    network, count = counting_network()
    with pytest.raises(ValueError, match=r"batch_size must be at least 1\. Received: batch_size=0"):
        pgd()(network, np.zeros((2, 6, 6, 1), "float32"), np.zeros(2), batch_size=0)
    assert count == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be at least 0. Received: epsilon=-0.1"),
        ({"epsilon": float("nan")}, "epsilon must be"),
        ({"step_size": -1}, "step_size must be at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"norm": "l1"}, "norm must be .*Received: norm='l1'"),
        (
            {"loss": "hinge"},
            "loss must be one of cross_entropy, margin, dlr, .*. Received: loss='hinge'",
        ),
    ],
)
def test_bad_fields(fields, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(**{"epsilon": 0.1, "step_size": 0.1, "steps": 1, **fields})


def test_probabilities_are_warned_of(images) -> None:
    network, _ = counting_network(activation="softmax")
    with pytest.warns(AttackWarning, match="look like probabilities"):
        FGSM(0.1)(network, images, np.zeros(13))


def test_images_must_be_of_the_networks_shape(images) -> None:
    network, count = counting_network()
    with pytest.raises(
        ValueError, match=r"x must hold images of shape \(6, 6, 1\)\. Received: .* \(5, 6, 1\)"
    ):
        FGSM(0.1)(network, images[:, 1:], np.zeros(13))
    assert count == []


def test_one_tensor_of_logits_is_expected(images) -> None:
    inputs = keras.Input((6, 6, 1))
    flat = layers.Flatten()(inputs)
    two = keras.Model(inputs, [layers.Dense(3)(flat), layers.Dense(2)(flat)])
    with pytest.raises(ValueError, match=r"one tensor of logits, \(N, K\)\. Received: 2 outputs"):
        FGSM(0.1)(two, images, np.zeros(13))


def test_outputs_must_be_finite_logits(images) -> None:
    network, _ = counting_network()
    network.layers[-1].set_weights([np.full((36, 3), np.inf), np.zeros(3)])
    with pytest.raises(ValueError, match="NaN or infinite logits on clean images"):
        FGSM(0.1)(network, images, np.zeros(13))
    single, _ = counting_network(units=1)
    with pytest.raises(
        ValueError, match=r"logits of shape \(N, K\), K ≥ 2. Received: outputs of shape \(8, 1\)"
    ):
        FGSM(0.1)(single, images, np.zeros(13))
    flat = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 3)])
    with pytest.raises(ValueError, match=r"Received: outputs of shape \(8, 4, 4, 3\)"):
        FGSM(0.1)(flat, images, np.zeros(13))


@functools.cache
def flat_network() -> keras.Model:
    return keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(CLASSES)])


def constant_network(bias: tuple[float, ...] = (2, 0, 0)) -> keras.Model:
    network = flat_network()
    network.layers[-1].set_weights([np.zeros((36, CLASSES)), np.array(bias)])
    return network


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_constant_network_leaves_the_start(norm: str, loss: str, images) -> None:
    y = np.zeros(13, "int32")
    for bias in ((2, 0, 0), (0, 0, 0)):
        network = constant_network(bias)
        x_adv = pgd(norm=norm, loss=loss, steps=2)(network, images, y, batch_size=8)
        assert np.isfinite(x_adv).all()
        assert (answers(network, x_adv) == y).all()
        still = pgd(norm=norm, loss=loss, steps=2, random_start=False)(network, images, y, batch_size=8)
        np.testing.assert_array_equal(still, images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [True, False])
def test_pixels_whose_gradient_is_not_a_number(norm: str, random_start: bool, images) -> None:
    """√((x - ½)²) has the gradient 0/0 at ½: those pixels stay finite, the others move."""

    class Distance(layers.Layer):
        def call(self, x):
            return ops.sqrt(ops.square(x - 0.5))

    network = keras.Sequential([keras.Input((6, 6, 1)), Distance(), layers.Flatten(), layers.Dense(CLASSES)])
    network.layers[-1].set_weights([np.random.default_rng(0).normal(size=(36, 3)), np.zeros(3)])
    x = images.copy()
    x[:, :3] = 0.5
    y = answers(network, x)
    x_adv = pgd(norm=norm, random_start=random_start)(network, x, y, batch_size=8)
    assert np.isfinite(x_adv).all()
    assert np.abs(x_adv - x)[:, 3:].max() > EPSILON[norm] / 10
    assert (answers(network, x_adv) == y).mean() < 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_other_precisions(policy: str, images) -> None:
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 unless asked for")
    network = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Flatten(dtype=policy),
            layers.Dense(8, activation="relu", dtype=policy),
            layers.Dense(CLASSES, dtype=policy),
        ]
    )
    rng = np.random.default_rng(6)
    network.set_weights([rng.normal(size=w.shape) for w in network.weights])
    y = answers(network, images)
    x_adv = pgd(norm="l2")(network, images, y, batch_size=8)
    assert x_adv.dtype == "float32"
    assert (answers(network, x_adv) != y).sum() >= 3


# Compilation and memory.


def test_numbers_do_not_compile_anew(images) -> None:
    """Other ε, steps, seeds, weights and batches reuse the graph; on torch there is none to reuse."""
    if BACKEND == "torch":
        pytest.skip("torch runs eagerly")
    network, count = counting_network()
    x, y = np.concatenate([images] * 3)[:32], np.zeros(32, "int32")
    y[:] = answers(network, x)
    attack = PGD(0.01, 0.001, 2, restarts=2)  # nothing falls: every batch is whole
    attack(network, x, y, batch_size=8)
    traced = len(count)
    assert 0 < traced < 20
    attack(network, x, y, batch_size=8)
    attack(network, x[:24], y[:24], seed=9, batch_size=8)
    replace(attack, epsilon=0.011, step_size=0.0005, steps=40, restarts=3)(network, x, y, batch_size=8)
    replace(attack, random_start=False)(network, x, y, batch_size=8)
    network.layers[-1].trainable = False
    network.set_weights([1.1 * w for w in network.get_weights()])
    attack(network, x, y, batch_size=8)
    assert len(count) == traced


def test_the_loop_is_not_unrolled(images) -> None:
    if BACKEND == "torch":
        pytest.skip("torch runs eagerly")
    arguments = images[:8], np.zeros(8, "int32"), np.arange(8, dtype="int32"), random.key(0)
    traced = []
    for steps in (1, 40):
        network, count = counting_network()
        attack = PGD(0.01, 0.001, steps)
        attack(network, images[:8], np.zeros(8), batch_size=8)
        searched = len(count)
        backend.compiled(network, attack.craft)(*arguments)
        traced.append((searched, len(count) - searched))
    assert traced[0] == traced[1]
    assert min(traced[0]) > 0


def test_torch_takes_steps_plus_one_passes_and_stops_early(images) -> None:
    if BACKEND != "torch":
        pytest.skip("passes are counted where Python makes them")
    network, count = counting_network()
    y = answers(network, images[:8])
    count.clear()
    PGD(1e-4, 1e-5, 7)(network, images[:8], y, batch_size=8)
    assert len(count) == 1 + 7 + 1  # the clean prediction, seven gradients, the last score
    count.clear()
    PGD(0.5, 0.5, 50)(network, images[:8], y, batch_size=8)
    assert len(count) < 10
    count.clear()
    PGD(0.5, 0.5, 50, early_stop=False)(network, images[:8], y, batch_size=8)
    assert len(count) == 1 + 50 + 1


def test_new_weights_are_seen(images) -> None:
    network = network_of("dense")
    first = predict(network, images)
    attack = pgd()
    attack(network, images, first.argmax(axis=1), batch_size=8)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([kernel[:, ::-1], bias[::-1]])
    np.testing.assert_allclose(predict(network, images), first[:, ::-1], rtol=1e-5, atol=1e-6)
    y = answers(network, images)
    x_adv = attack(network, images, y, batch_size=8)
    fresh = network_of("dense")
    fresh.layers[-1].set_weights([kernel[:, ::-1], bias[::-1]])
    np.testing.assert_allclose(x_adv, attack(fresh, images, y, batch_size=8), atol=1e-6)


def test_freezing_one_layer_after_another_changes_nothing(images) -> None:
    """Layers of one shape: a graph that takes its weights by place among the trainable ones would mix them up."""
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), *(layers.Dense(36, activation="tanh") for _ in range(3))]
    )
    expected = predict(network, images)
    for layer in network.layers[1:]:
        layer.trainable = False
        np.testing.assert_allclose(predict(network, images), expected, rtol=1e-6, atol=1e-7)
        layer.trainable = True


def test_the_network_can_be_garbage_collected(images) -> None:
    network = network_of("batch norm")
    pgd(restarts=2)(network, images, labels_of(network, images), batch_size=8)
    references = [weakref.ref(network), *(weakref.ref(layer) for layer in network.layers)]
    del network
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


# Crafting inside a training step.


@pytest.mark.parametrize(("norm", "random_start"), [("linf", True), ("l2", True), ("l2", False)])
def test_craft_returns_the_last_iterate(norm: str, random_start: bool, linear) -> None:
    """On a linear network five steps go straight to the edge, at the scale of each image."""
    weights, bias, x = linear
    x = (0.4 + 0.2 * x).astype("float32")
    network = linear_network(weights, bias)
    y = (x.reshape(40, 16).astype("float64") @ weights + bias > 0).astype("int32")
    scale = np.linspace(0, 1, 40).reshape(40, 1, 1, 1).astype("float32")
    attack = PGD(0.1, 0.1, 5, norm=norm, random_start=random_start)
    crafted = backend.compiled(network, attack.craft)
    x_adv = crafted(x, y, np.arange(40, dtype="int32"), random.key(0), scale)
    downhill = (1 - 2 * y)[:, None, None, None] * weights.reshape(1, 4, 4, 1)
    unit = np.sign(downhill) if norm == "linf" else downhill / np.linalg.norm(weights)
    tolerance = 1e-6 if norm == "linf" else 3e-3  # five steps turn a random L2 start almost to the end
    np.testing.assert_allclose(ops.convert_to_numpy(x_adv), x + 0.1 * scale * unit, atol=tolerance)
    np.testing.assert_array_equal(ops.convert_to_numpy(x_adv)[0], x[0])


# Fields.


@pytest.mark.parametrize("name", ATTACKS)
def test_configuration_round_trip(name: str) -> None:
    attack = ATTACKS[name]
    assert PGD.from_config(attack.get_config()) == attack
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
    assert restored == attack


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (FGSM(0.1), "FGSM"),
        (BIM(0.1, 0.01, 10), "BIM-10"),
        (PGD(0.1, 0.01, 40), "PGD-40"),
        (PGD(0.1, 0.01, 40, restarts=20, loss="margin"), "PGD-40 ×20, margin"),
        (PGD(0.1, 0.01, 4, norm="l2", loss="cross_entropy", targeted=True), "PGD-4, L2, targeted"),
    ],
)
def test_labels(attack: PGD, label: str) -> None:
    assert attack.label == label
