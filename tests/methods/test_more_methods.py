"""IAAT, PATDA, TRADES, MART, ensembles, distillation, center loss, L-GM and AWP against numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import FGSM, PGD
from kbl.layers import GMMHead
from kbl.losses import (
    boosted_cross_entropy,
    coral,
    cross_entropy,
    kl_divergence,
    misclassification_weighted_kl,
    mmd,
    supervised_margin,
)
from kbl.methods import (
    AWP,
    IAAT,
    LGM,
    MART,
    PATDA,
    TRADES,
    AdversarialTraining,
    CenterLoss,
    DefensiveDistillation,
    EnsembleAdversarialTraining,
    Natural,
)
from kbl.training import Batches, RobustModel

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (12, 2, 2, 1)).astype("float32")
Y = (np.arange(12) % 3).astype("int32")
EAGER = keras.config.backend() != "jax"
CLEAN = RNG.normal(size=(4, 3)).astype("float32")
ADVERSARIAL = RNG.normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 0])


def numbers(tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(tensor)))


def network(seed: int = 1, head: layers.Layer | None = None) -> keras.Model:
    net = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Flatten(),
            layers.Dense(5, activation="tanh"),
            head or layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(seed)
    net.set_weights([rng.normal(0, 0.7, weight.shape).astype("float32") for weight in net.weights])
    return net


def trained(method, net=None, epochs: int = 1, rate: float = 0.1, x=X, y=Y, **options) -> RobustModel:
    model = RobustModel(net or network())
    model.compile(keras.optimizers.SGD(rate), method=method, **options)
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


# Losses.


def test_trades_loss() -> None:
    loss = TRADES(attack=FGSM(0.1), beta=2.0).loss(LABELS, CLEAN, ADVERSARIAL)
    expected = numbers(cross_entropy(LABELS, CLEAN)) + 2 * numbers(kl_divergence(CLEAN, ADVERSARIAL))
    np.testing.assert_allclose(numbers(loss), expected, rtol=1e-6)


def test_mart_loss() -> None:
    loss = MART(attack=FGSM(0.1), regularization_weight=3.0).loss(LABELS, CLEAN, ADVERSARIAL)
    expected = numbers(boosted_cross_entropy(LABELS, ADVERSARIAL)) + 3 * numbers(
        misclassification_weighted_kl(LABELS, CLEAN, ADVERSARIAL)
    )
    np.testing.assert_allclose(numbers(loss), expected, rtol=1e-6)


def test_patda_loss_and_centres() -> None:
    """The centres of the first step are zero; after it they have moved towards the logits of both images."""
    net = network()
    method = PATDA(attack=FGSM(0.1), adaptation_weight=0.5, centre_rate=0.1)
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(0.0), method=method, run_eagerly=EAGER)
    logs = model.train_on_batch(X[:4], LABELS, return_dict=True)
    index = ops.arange(4, dtype="int32")
    x_adv = method.craft(
        net, ops.convert_to_tensor(X[:4]), LABELS, index, random.key(0, 0), ops.convert_to_tensor(0)
    )
    z, a = numbers(net(X[:4])), numbers(net(x_adv))
    zero = np.zeros((3, 3), "float32")
    margin = np.concatenate([numbers(supervised_margin(LABELS, each, zero)) for each in (z, a)]).mean()
    expected = numbers(cross_entropy(LABELS, z)).mean() + numbers(cross_entropy(LABELS, a)).mean()
    expected += 0.5 * (numbers(coral(z, a)) + numbers(mmd(z, a)) + margin)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    both, labels = np.concatenate([z, a]), np.tile(LABELS, 2)
    centres = [0.1 * both[labels == k].sum(0) / (1 + (labels == k).sum()) for k in range(3)]
    np.testing.assert_allclose(numbers(model.method.memory["centres"]), centres, rtol=1e-4, atol=1e-6)
    assert method.memory == {}, "what is remembered belongs to the model"
    before = numbers(model.method.memory["centres"])
    model.evaluate(X[:4], LABELS, verbose=0)
    np.testing.assert_array_equal(numbers(model.method.memory["centres"]), before)


def test_patda_trains_on_a_last_batch_of_one_image() -> None:
    model = trained(PATDA(attack=FGSM(0.1)), x=X[:5], y=Y[:5])
    assert all(np.isfinite(weight).all() for weight in model.network.get_weights())


class Subclassed(keras.Model):
    """Logits of three classes; what it returns only a call tells."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

    def call(self, x, training=None):
        return self.dense(self.flatten(x))


class Telling(Subclassed):
    output_shape = (None, 3)


def test_patda_asks_a_network_for_its_classes() -> None:
    silent, telling = Subclassed(), Telling()
    silent(X), telling(X)
    with pytest.raises(
        ValueError, match=r"PATDA.*property `output_shape`, \(None, K\)\. Received: <Subclassed"
    ):
        trained(PATDA(attack=FGSM(0.1)), silent)
    model = trained(PATDA(attack=FGSM(0.1)), telling)
    assert model.method.memory["centres"].shape == (3, 3)


def test_center_loss_method() -> None:
    net = network()
    model = RobustModel(net)
    model.compile(
        keras.optimizers.SGD(0.0), method=CenterLoss(weight=0.5, centre_rate=0.5), run_eagerly=EAGER
    )
    logs = model.train_on_batch(X[:4], LABELS, return_dict=True)
    features = numbers(keras.Model(net.inputs, net.layers[-2].output)([X[:4]]))
    expected = numbers(cross_entropy(LABELS, net(X[:4]))).mean() + 0.25 * (features**2).sum(1).mean()
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    first = 0.5 * features[LABELS == 0].sum(0) / 3
    np.testing.assert_allclose(numbers(model.method.memory["centres"])[0], first, rtol=1e-5)


@pytest.mark.parametrize("covariance", ["identity", "diagonal"])
def test_lgm_trains_the_covariance(covariance) -> None:
    net = network(head=GMMHead(3, covariance=covariance))
    before = [numbers(weight) for weight in net.layers[-1].weights]
    model = trained(LGM(margin=0.5, likelihood_weight=0.1), net)
    assert set(model.get_metrics_result()) == {"loss", "clean_accuracy", "clean_lkd"}
    for old, new in zip(before, net.layers[-1].weights, strict=True):
        assert np.abs(numbers(new) - old).max() > 1e-3


def test_label_smoothing() -> None:
    """The mean of log p over all classes takes part of the label's place."""
    net = network()
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(0.0), method=Natural(label_smoothing=0.3), run_eagerly=EAGER)
    logs = model.train_on_batch(X[:4], LABELS, return_dict=True)
    logits = numbers(net(X[:4])).astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(0.7 * log_p[range(4), LABELS] + 0.3 * log_p.mean(1)).mean()
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


# Crafting.


def test_trades_needs_no_label_to_craft() -> None:
    """Of a linear network each step follows the sign of W (p(a) - p(x)); labels do not matter."""
    net = network()
    method = TRADES(attack=PGD(0.1, 0.05, 3))
    index, key = ops.arange(4, dtype="int32"), random.key(1)
    made = [
        numbers(method.craft(net, ops.convert_to_tensor(X[:4]), y, index, key, None))
        for y in (np.array([0, 1, 2, 0]), np.array([1, 2, 0, 1]))
    ]
    np.testing.assert_array_equal(made[0], made[1])
    far = numbers(kl_divergence(net(X[:4]), net(made[0])))
    noisy = X[:4] + 0.1 * np.sign(RNG.normal(size=X[:4].shape)).astype("float32")
    noise = numbers(kl_divergence(net(X[:4]), net(noisy)))
    assert far.mean() > noise.mean()
    assert np.abs(made[0] - X[:4]).max() <= 0.1


def threshold() -> keras.Model:
    """Class 1 where the one pixel is above one half: logit_1 = 10 (x - ½)."""
    net = keras.Sequential([keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(2)])
    net.set_weights([np.array([[0.0, 10.0]], "float32"), np.array([0.0, -5.0], "float32")])
    return net


def test_iaat_radii_by_hand() -> None:
    """Images of class 1 at 0.9, 0.65, 0.52 are safe up to 0.4, 0.15, 0.02.

    With ε = 0.1 for all, γ = 0.1 and β = ½ the first withstands 0.2 (0.15 is kept), the second 0.1 but not 0.2 (0.1),
    the third neither (0.05).
    """
    x = np.array([0.9, 0.65, 0.52], "float32").reshape(3, 1, 1, 1)
    y = np.ones(3, "int32")
    model = RobustModel(threshold())
    method = IAAT(attack=PGD(0.1, 0.1, 2, random_start=False), images=3, gamma=0.1, beta=0.5)
    model.compile(keras.optimizers.SGD(0.0), method=method, run_eagerly=EAGER)
    model.fit(x, y, batch_size=3, epochs=1, verbose=0)
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), [0.15, 0.1, 0.05], rtol=1e-5)
    model.fit(x, y, batch_size=3, epochs=1, verbose=0)
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), [0.2, 0.1, 0.025], rtol=1e-5)


def test_iaat_radii_in_l2_reach_across_the_image() -> None:
    """Four white pixels are √4 from black ones; class 1 has the greater logit everywhere: 1.8 grows to 2 and stays."""
    net = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2)])
    net.set_weights([np.tile(np.array([0.0, 1.0], "float32"), (4, 1)), np.array([0.0, 1.0], "float32")])
    model = RobustModel(net)
    attack = PGD(1.8, 0.9, 2, norm="l2", random_start=False)
    method = IAAT(attack=attack, images=1, gamma=0.15, beta=1.0)
    model.compile(keras.optimizers.SGD(0.0), method=method, run_eagerly=EAGER)
    for radius in (1.95, 2.0, 2.0):
        model.fit(np.ones((1, 2, 2, 1), "float32"), np.ones(1, "int32"), epochs=1, verbose=0)
        np.testing.assert_allclose(numbers(model.method.memory["radii"]), [radius], rtol=1e-5)


@pytest.mark.parametrize("batches", [True, False], ids=["Batches", "arrays"])
def test_iaat_radii_follow_their_images(batches) -> None:
    """Whatever the order of training, each image keeps its own radius; safe and unsafe images alternate."""
    x = np.tile(np.array([0.9, 0.52], "float32"), 8).reshape(16, 1, 1, 1)
    y = np.ones(16, "int32")
    model = RobustModel(threshold())
    method = IAAT(attack=PGD(0.1, 0.1, 2, random_start=False), images=16, gamma=0.05, beta=1.0)
    model.compile(keras.optimizers.SGD(0.0), method=method)
    if batches:
        model.fit(Batches(x, y, 4, seed=0), epochs=2, verbose=0)
    else:
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), np.tile([0.2, 0.0], 8), atol=1e-6)


@pytest.mark.parametrize("kind", ["tensors", "generator"])
def test_iaat_needs_to_know_which_images_it_sees(kind) -> None:
    x, y = np.array([0.9, 0.52], "float32").reshape(2, 1, 1, 1), np.ones(2, "int32")
    method = IAAT(attack=PGD(0.1, 0.1, 2, random_start=False), images=2, gamma=0.05, beta=1.0)

    def fit(*given) -> RobustModel:
        model = RobustModel(threshold())
        model.compile(keras.optimizers.SGD(0.0), method=method)
        model.fit(*given, steps_per_epoch=1, shuffle=False, verbose=0)
        return model

    tensors = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    given = tensors if kind == "tensors" else ((batch for batch in [(x, y)]),)
    with pytest.raises(
        ValueError, match="IAAT tells images apart by their place in the training set: give fit"
    ):
        fit(*given)
    swapped = {"images": x[::-1].copy(), "index": np.array([1, 0], "int32")}
    model = fit(batch for batch in [(swapped, y)])
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), [0.15, 0.05], rtol=1e-5)
    model.evaluate(*tensors, verbose=0)  # at the attack's ε for all


@pytest.mark.parametrize("batches", [True, False], ids=["Batches", "arrays"])
def test_iaat_refuses_more_images_than_it_has_radii(batches) -> None:
    x, y = np.full((5, 1, 1, 1), 0.9, "float32"), np.ones(5, "int32")
    model = RobustModel(threshold())
    model.compile(keras.optimizers.SGD(0.0), method=IAAT(attack=PGD(0.1, 0.1, 2), images=4, gamma=0.1))
    with pytest.raises(ValueError, match=r"IAAT\(images=4\), and 5 images in fit"):
        model.fit(Batches(x, y, 5, seed=0), verbose=0) if batches else model.fit(x, y, verbose=0)
    if not batches:
        model.fit(x, y, validation_split=0.2, verbose=0)  # trains on the first four


def test_iaat_warms_up_at_the_fixed_radius() -> None:
    x = np.full((4, 1, 1, 1), 0.9, "float32")
    model = RobustModel(threshold())
    method = IAAT(attack=PGD(0.1, 0.1, 2), images=4, gamma=0.1, fixed_steps=2, beta=1.0)
    model.compile(keras.optimizers.SGD(0.0), method=method)
    model.fit(x, np.ones(4, "int32"), batch_size=4, epochs=2, verbose=0)
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), 0.1, rtol=1e-6)
    model.fit(x, np.ones(4, "int32"), batch_size=4, epochs=1, verbose=0)
    np.testing.assert_allclose(numbers(model.method.memory["radii"]), 0.2, rtol=1e-5)


def test_the_ensemble_takes_turns() -> None:
    """Steps 0, 1, 2, 3 craft on the network, the two sources, the network; validation on the network alone."""
    own, first, second = network(1), network(2), network(3)
    method = EnsembleAdversarialTraining(attack=FGSM(0.1), sources=(first, second))
    index, key = ops.arange(12, dtype="int32"), random.key(0)
    plain = AdversarialTraining(attack=FGSM(0.1))
    for step, source in ((0, own), (1, first), (2, second), (3, own), (None, own)):
        taken = None if step is None else ops.convert_to_tensor(step, "int32")
        made = method.craft(own, ops.convert_to_tensor(X), Y, index, key, taken)
        expected = plain.craft(source, ops.convert_to_tensor(X), Y, index, key, None)
        np.testing.assert_array_equal(numbers(made), numbers(expected))
    weights = [numbers(weight) for weight in first.weights + second.weights]
    model = trained(method, own)
    for old, new in zip(weights, first.weights + second.weights, strict=True):
        np.testing.assert_array_equal(old, numbers(new))
    assert len(model.trainable_variables) == len(own.trainable_variables)


def test_distillation() -> None:
    """The teacher's softened prediction is the label; the teacher stays."""
    own, teacher = network(1), network(2)
    before = [numbers(weight) for weight in teacher.weights]
    model = RobustModel(own)
    method = DefensiveDistillation(temperature=4.0, teacher=teacher)
    model.compile(keras.optimizers.SGD(0.5), method=method, run_eagerly=EAGER)
    z, t = numbers(own(X[:4])).astype("float64") / 4, numbers(teacher(X[:4])).astype("float64") / 4
    p = np.exp(t) / np.exp(t).sum(1, keepdims=True)
    expected = -(p * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(1).mean()
    logs = model.train_on_batch(X[:4], LABELS, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    for old, new in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(old, numbers(new))


@pytest.mark.parametrize("kind", ["teacher", "sources"])
def test_companions_stay_their_owners(kind) -> None:
    """They are neither trained nor frozen, and what their owner does with them is seen by the next fit."""
    companion = network(2)
    companion.layers[1].trainable = False
    method = (
        DefensiveDistillation(teacher=companion)
        if kind == "teacher"
        else EnsembleAdversarialTraining(attack=FGSM(0.1), sources=(companion,))
    )
    own = network(1)
    model = RobustModel(own)
    model.compile(keras.optimizers.SGD(0.0), method=method, weight_perturbation=AWP(gamma=1e-6))
    assert len(model.trainable_variables) == len(model.trainable_weights) == 4
    options = {"batch_size": 12, "epochs": 2, "shuffle": False, "verbose": 0}
    first = model.fit(X, Y, **options).history["loss"][-1]
    assert [layer.trainable for layer in companion.layers] == [True, False, True]
    owner = RobustModel(companion)
    owner.compile(keras.optimizers.SGD(5.0))
    before = companion.get_weights()
    owner.fit(X, Y, epochs=1, verbose=0)
    changed = [np.abs(a - b).max() > 0 for a, b in zip(before, companion.get_weights(), strict=True)]
    assert changed == [False, False, True, True]
    model.steps_taken.assign(0)
    assert abs(model.fit(X, Y, **options).history["loss"][-1] - first) > 1e-3
    model.compile(keras.optimizers.SGD(0.1), method=Natural())
    assert len(model.variables) == len(own.variables) + 1, "an earlier method's companions are gone"


# Adversarial weight perturbation.


def test_awp_by_hand() -> None:
    """One linear layer: the step's gradient is that at w + γ ‖w‖ g/‖g‖, taken from w; biases are not moved."""
    net = keras.Sequential([keras.Input((1, 2, 1)), layers.Flatten(), layers.Dense(2)])
    w = np.array([[1.0, -0.5], [0.3, 0.8]])
    net.set_weights([w.astype("float32"), np.zeros(2, "float32")])
    x = np.array([[0.2, 0.7], [0.9, 0.4]])
    y = np.array([0, 1])

    def gradient(kernel):
        z = x @ kernel
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return x.T @ (p - np.eye(2)[y]) / 2

    g = gradient(w)
    shifted = w + 0.1 * np.linalg.norm(w) * g / np.linalg.norm(g)
    model = RobustModel(net)
    model.compile(
        keras.optimizers.SGD(1.0), method=Natural(), weight_perturbation=AWP(gamma=0.1), run_eagerly=EAGER
    )
    model.train_on_batch(x.reshape(2, 1, 2, 1).astype("float32"), y)
    np.testing.assert_allclose(numbers(net.layers[-1].kernel), w - gradient(shifted), rtol=1e-5)


def test_awp_waits_for_its_warmup() -> None:
    plain = trained(AdversarialTraining(attack=FGSM(0.1)))
    late = trained(AdversarialTraining(attack=FGSM(0.1)), weight_perturbation=AWP(gamma=0.5, warmup_steps=3))
    early = trained(AdversarialTraining(attack=FGSM(0.1)), weight_perturbation=AWP(gamma=0.5))
    for a, b in zip(plain.get_weights(), late.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(plain.network.get_weights()[0] - early.network.get_weights()[0]).max() > 1e-4


def test_awp_leaves_batch_statistics_to_the_step() -> None:
    """The pass that finds the perturbation updates nothing: the moving mean is that of one pass."""
    normalise = layers.BatchNormalization(momentum=0.5)
    net = keras.Sequential([keras.Input((2, 2, 1)), normalise, layers.Flatten(), layers.Dense(3)])
    trained(Natural(), net, x=X[:4], y=Y[:4], weight_perturbation=AWP(gamma=0.1))
    np.testing.assert_allclose(numbers(normalise.moving_mean), [0.5 * X[:4].mean()], rtol=1e-5)


# All of them.

EVERY = {
    "iaat": lambda: IAAT(attack=PGD(0.1, 0.05, 2), images=12, gamma=0.02, fixed_steps=1),
    "patda": lambda: PATDA(attack=PGD(0.1, 0.05, 2)),
    "trades": lambda: TRADES(attack=PGD(0.1, 0.05, 2)),
    "mart": lambda: MART(attack=PGD(0.1, 0.05, 2)),
    "ensemble": lambda: EnsembleAdversarialTraining(attack=FGSM(0.1), sources=(network(7),)),
    "distillation": lambda: DefensiveDistillation(teacher=network(7)),
    "center": lambda: CenterLoss(),
    "lgm": lambda: LGM(),
}
# The losses of two epochs, the same on every backend.
GOLDEN = {
    "iaat": [1.62667, 1.39706],
    "patda": [3.264827, 2.942676],
    "trades": [1.538345, 1.34778],
    "mart": [2.445349, 1.889012],
    "ensemble": [1.562291, 1.341152],
    "distillation": [1.100333, 1.100323],
    "center": [1.512174, 1.328416],
    "lgm": [2.207853, 1.98555],
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("perturbed", [False, True], ids=["", "awp"])
def test_every_method_trains_saves_and_goes_on(name: str, perturbed: bool, tmp_path) -> None:
    method = EVERY[name]()
    net = network(head=GMMHead(3) if method.needs_gmm_head else None)
    model = RobustModel(net)
    options = {"weight_perturbation": AWP(gamma=0.01)} if perturbed else {}
    model.compile(keras.optimizers.SGD(0.1), method=method, **options)
    losses = model.fit(Batches(X, Y, 4, seed=0), epochs=2, verbose=0).history["loss"]
    if not perturbed:
        np.testing.assert_allclose(losses, GOLDEN[name], rtol=2e-4)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(restored.method, type(method))
    assert restored.weight_perturbation == model.weight_perturbation
    for key, value in model.method.memory.items():
        np.testing.assert_array_equal(numbers(restored.method.memory[key]), numbers(value))
    on = [
        each.fit(Batches(X, Y, 4, seed=5), epochs=1, verbose=0).history["loss"] for each in (model, restored)
    ]
    np.testing.assert_allclose(on[0], on[1], rtol=1e-5)
    plain = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert plain.network.count_params() == net.count_params()


def test_faults_are_refused() -> None:
    attack = PGD(0.1, 0.05, 2)
    for make, message in (
        (lambda: IAAT(attack=attack, images=0, gamma=0.1), "images must be at least 1"),
        (lambda: IAAT(attack=attack, images=3, gamma=0.0), "gamma must be greater than 0"),
        (lambda: IAAT(attack=attack, images=3, gamma=0.1, beta=0.0), r"beta must be in \(0, 1\]"),
        (lambda: IAAT(attack=PGD(0.0, 0.1, 1), images=3, gamma=0.1), "attack of ε > 0"),
        (lambda: PATDA(attack=attack, adaptation_weight=-1), "adaptation_weight must be at least 0"),
        (lambda: PATDA(attack=None), "PATDA needs an attack"),
        (lambda: TRADES(attack=attack, beta=-1), "beta must be at least 0"),
        (lambda: TRADES(attack=PGD(0.1, 0.1, 1, loss="margin")), 'loss="cross_entropy"'),
        (lambda: MART(attack=attack, regularization_weight=-1), "regularization_weight must be"),
        (lambda: EnsembleAdversarialTraining(attack=attack), "at least one network"),
        (lambda: DefensiveDistillation(temperature=0.0), "temperature must be greater than 0"),
        (lambda: CenterLoss(weight=-1.0), "weight must be at least 0"),
        (lambda: CenterLoss(centre_rate=0.0), r"centre_rate must be in \(0, 1\]"),
        (lambda: LGM(margin=-1.0), "margin must be at least 0"),
        (lambda: LGM(likelihood_weight=-1.0), "likelihood_weight must be at least 0"),
        (lambda: AWP(gamma=0.0), "gamma must be greater than 0"),
        (lambda: AWP(warmup_steps=-1), "warmup_steps must be at least 0"),
        (lambda: Natural(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    model = RobustModel(network())
    with pytest.raises(ValueError, match="LGM reads likelihoods"):
        model.compile("adam", method=LGM())
