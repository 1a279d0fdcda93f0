"""Training methods against numbers worked out by hand."""

import gc
import math
import weakref
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import random
from kbl.attacks import APGD, FGSM, PGD
from kbl.layers import GMMHead
from kbl.losses import cross_entropy
from kbl.methods import ATBLR, AdversarialTraining, Method, Natural
from kbl.training import RobustModel

NO_ATTACK = PGD(0.0, 0.0, 1, random_start=False)
X = np.array([[[0.2, 0.7]], [[0.9, 0.4]], [[0.5, 0.6]], [[0.3, 0.1]]], "float32")[..., None]
Y = np.array([0, 1, 1, 0], "int32")


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.convert_to_tensor(tensor))


def log(*rows) -> np.ndarray:
    return np.log(np.array(rows, "float32"))


def network(*hidden: layers.Layer, head: layers.Layer | None = None) -> keras.Model:
    """Flatten a 1x2 image, pass it through the layers, end with two logits."""
    return keras.Sequential([keras.Input((1, 2, 1)), layers.Flatten(), *hidden, head or layers.Dense(2)])


def crafted(method: Method, net: keras.Model, step: int = 0, seed: int = 0) -> np.ndarray:
    """Return what the method makes of X at a step of training."""
    index = ops.arange(len(X), dtype="int32")
    step = ops.convert_to_tensor(step, "int32")
    return numbers(method.craft(net, ops.convert_to_tensor(X), Y, index, random.key(seed, step), step))


def step_of(net: keras.Model, method: Method, **options) -> dict[str, float]:
    """Take one step of plain gradient descent with rate 1, so that the change of a weight is its gradient."""
    model = RobustModel(net)
    # Compiling once is quicker than eager steps on JAX, and slower elsewhere.
    eager = keras.config.backend() != "jax"
    model.compile(keras.optimizers.SGD(1.0), method=method, run_eagerly=eager, **options)
    return model.train_on_batch(X, Y, return_dict=True)


# Losses.

CLEAN = log((0.5, 0.25, 0.25), (0.1, 0.2, 0.7))
ADVERSARIAL = log((0.25, 0.5, 0.25), (0.2, 0.1, 0.7))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Natural(), [math.log(2), math.log(5)]),
        (AdversarialTraining(attack=NO_ATTACK), [math.log(4), math.log(10)]),
        (
            AdversarialTraining(attack=NO_ATTACK, examples="clean and adversarial"),
            [math.log(8) / 2, math.log(50) / 2],
        ),
    ],
)
@pytest.mark.parametrize("y", [np.array([0, 1]), np.eye(3, dtype="float32")[:2]], ids=["indices", "one-hot"])
def test_cross_entropy_methods(method, expected, y) -> None:
    np.testing.assert_allclose(numbers(method.loss(y, CLEAN, ADVERSARIAL)), expected, rtol=1e-6)


@pytest.mark.parametrize(("bound", "expected"), [(None, -3.0), (20.0, -3.0), (5.0, -1.5), (1.0, 0.5)])
def test_atblr_loss(bound, expected) -> None:
    """Equal logits give cross-entropy log 3 each; distances² are 2 (clean) and 8 (adversarial), or the bound."""
    clean, adversarial = np.full((1, 3), -1, "float32"), np.full((1, 3), -4, "float32")
    method = ATBLR(attack=NO_ATTACK, likelihood_weight=0.1, bound=bound)
    loss = numbers(method.loss(np.array([2]), clean, adversarial))
    np.testing.assert_allclose(loss, [math.log(3) + 0.1 * expected], rtol=1e-6)


def test_natural_looks_at_clean_logits_alone() -> None:
    assert numbers(Natural().loss(Y[:2], CLEAN)).shape == (2,)
    assert Natural().attack is None


# Gradients of ATBLR on a linear body h = x·W, in closed form.

W = np.array([[1.0, -0.5], [0.3, 0.8]])
MEANS = np.array([[0.4, 1.2], [-0.6, 0.5]])


def closed_form(a, weight, bound, through):
    """Return the loss and its gradients with respect to W and the means, in float64."""
    loss, d_body, d_means = 0.0, np.zeros_like(W), np.zeros_like(MEANS)
    for images, sign in ((X, 1.0), (a, -1.0)):
        for x, y in zip(images.astype("float64").reshape(-1, 2), Y, strict=True):
            h = x @ W
            logits = -0.5 * ((h - MEANS) ** 2).sum(axis=1)
            p = np.exp(logits) / np.exp(logits).sum()
            error = p - np.eye(2)[y]  # ∂CE/∂logits
            d_h = error @ (MEANS - h)
            d_mu = error[:, None] * (h - MEANS)
            distance = ((h - MEANS[y]) ** 2).sum()
            capped = sign < 0 and bound is not None and distance > bound
            if not capped and not (sign < 0 and through == "means"):
                d_h = d_h + sign * weight * 2 * (h - MEANS[y])
            if not capped and not (sign < 0 and through == "features"):
                d_mu[y] -= sign * weight * 2 * (h - MEANS[y])
            loss += 0.5 * (-np.log(p[y]) + sign * weight * (bound if capped else distance)) / len(X)
            d_body += 0.5 * np.outer(x, d_h) / len(X)
            d_means += 0.5 * d_mu / len(X)
    return loss, d_body, d_means


@pytest.mark.parametrize(
    ("through", "bound"),
    [("features and means", None), ("features and means", 0.7), ("means", 0.7), ("features", None)],
)
def test_atblr_gradients(through, bound) -> None:
    head = GMMHead(2)
    net = network(layers.Dense(2, use_bias=False, name="body"), head=head)
    net.set_weights([W.astype("float32"), MEANS.astype("float32")])
    method = ATBLR(attack=FGSM(0.1), likelihood_weight=0.3, bound=bound, gradient_through=through)
    x_adv = crafted(method, net)
    distance = ((x_adv.reshape(-1, 2) @ W - MEANS[Y]) ** 2).sum(axis=1)
    assert 0 < (distance > 0.7).sum() < len(X), "the bound must catch some images and not others"
    loss, d_body, d_means = closed_form(x_adv, 0.3, bound, through)
    logs = step_of(net, method)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    body, means = net.get_weights()
    np.testing.assert_allclose(W - body, d_body, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(MEANS - means, d_means, rtol=1e-4, atol=1e-6)


def test_atblr_forgets_networks_that_are_gone() -> None:
    net = network(layers.Dense(2), head=GMMHead(2))
    method = ATBLR(attack=NO_ATTACK, likelihood_weight=0.1, gradient_through="means")
    logits = method.forward(net, X, X, training=False)
    np.testing.assert_array_equal(numbers(logits[1]), numbers(logits[2]))
    gone = weakref.ref(net)
    del net, logits
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None


# Batch normalization.


def statistics(method: Method, *hidden: layers.Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the adversaries of a step, and the moving mean and variance after it (momentum ½; 0 and 1 before)."""
    normalise = layers.BatchNormalization(momentum=0.5, scale=False)
    net = network(normalise, *hidden)
    net.layers[-1].kernel.assign([[1.0, -0.5], [0.4, 2.0]])
    x_adv = crafted(method, net)
    np.testing.assert_array_equal(numbers(normalise.moving_mean), [0, 0])
    np.testing.assert_array_equal(numbers(normalise.moving_variance), [1, 1])
    step_of(net, method)
    return x_adv.reshape(-1, 2), numbers(normalise.moving_mean), numbers(normalise.moving_variance)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_joint_batch_norm(mode) -> None:
    method = AdversarialTraining(attack=FGSM(0.1), examples="clean and adversarial", crafting_mode=mode)
    x_adv, mean, variance = statistics(method)
    both = np.concatenate([X.reshape(-1, 2), x_adv])
    np.testing.assert_allclose(mean, 0.5 * both.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.5 + 0.5 * both.var(axis=0), rtol=1e-5)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_separate_batch_norm(mode) -> None:
    """First the clean images, then the adversarial ones: the last count twice as much."""
    method = AdversarialTraining(
        attack=FGSM(0.1), examples="clean and adversarial", batch_norm="separate", crafting_mode=mode
    )
    x_adv, mean, variance = statistics(method)
    x = X.reshape(-1, 2)
    np.testing.assert_allclose(mean, 0.25 * x.mean(axis=0) + 0.5 * x_adv.mean(axis=0), rtol=1e-5)
    expected = 0.25 + 0.25 * x.var(axis=0) + 0.5 * x_adv.var(axis=0)
    np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_batch_norm_of_madrys_training_sees_adversarial_images_alone() -> None:
    x_adv, mean, variance = statistics(AdversarialTraining(attack=FGSM(0.1)))
    np.testing.assert_allclose(mean, 0.5 * x_adv.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.5 + 0.5 * x_adv.var(axis=0), rtol=1e-5)


def test_crafting_mode_decides_on_batch_statistics() -> None:
    """In training mode a shift of all images alike changes nothing, so an image's own gradient may change its sign."""
    normalise = layers.BatchNormalization()
    net = network(normalise)
    net.layers[-1].kernel.assign([[1.0, -0.5], [0.4, 2.0]])
    made = {}
    for mode in ("inference", "training"):
        made[mode] = crafted(AdversarialTraining(attack=FGSM(0.1), crafting_mode=mode), net)
    kernel = np.array([[1.0, -0.5], [0.4, 2.0]])
    expected = X.reshape(-1, 2) + 0.1 * np.sign(
        (kernel[:, 1] - kernel[:, 0]) * np.where(Y == 0, 1, -1)[:, None]
    )
    np.testing.assert_allclose(made["inference"].reshape(-1, 2), np.clip(expected, 0, 1), atol=1e-6)
    assert np.abs(made["training"] - made["inference"]).max() > 0.1


def test_crafting_draws_no_dropout_noise_for_good() -> None:
    """The update draws once; the two passes of crafting in training mode leave the generator as it was."""
    dropout = layers.Dropout(0.5, seed=3)
    net = network(layers.Dense(8), dropout)
    seed = numbers(dropout.seed_generator.state)
    method = AdversarialTraining(
        attack=PGD(0.1, 0.1, 2), examples="clean and adversarial", crafting_mode="training"
    )
    crafted(method, net)
    np.testing.assert_array_equal(numbers(dropout.seed_generator.state), seed)
    step_of(net, method)
    once = keras.random.SeedGenerator(3)
    once.next()
    np.testing.assert_array_equal(numbers(dropout.seed_generator.state), numbers(once.state))


# Crafting.


@pytest.mark.parametrize("attack", [FGSM(0.2), PGD(0.2, 0.1, 3)], ids=["fgsm", "pgd"])
def test_warmup_scales_the_ball(attack) -> None:
    x = np.full((4, 1, 2, 1), 0.5, "float32")
    net = network()
    net.layers[-1].kernel.assign([[1.0, -0.5], [0.4, 2.0]])
    method = AdversarialTraining(attack=attack, warmup_steps=4)
    index, key = ops.arange(4, dtype="int32"), random.key(0)
    for step, epsilon in ((0, 0.05), (1, 0.1), (2, 0.15), (3, 0.2), (100, 0.2), (None, 0.2)):
        taken = None if step is None else ops.convert_to_tensor(step, "int32")
        x_adv = numbers(method.craft(net, ops.convert_to_tensor(x), Y, index, key, taken))
        np.testing.assert_allclose(np.abs(x_adv - x).max(), epsilon, atol=2e-7)
        if attack.name == "fgsm":
            np.testing.assert_allclose(np.abs(x_adv - x), epsilon, atol=2e-7)


def test_faults_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inside a training step: .* Received: APGD"):
        AdversarialTraining(attack=APGD(0.1))
    with pytest.raises(ValueError, match=r"one start\. Received: restarts=2"):
        AdversarialTraining(attack=PGD(0.1, 0.1, 1, restarts=2))
    with pytest.raises(ValueError, match=r"untargeted images.*Received: targeted=True"):
        AdversarialTraining(attack=PGD(0.1, 0.1, 1, targeted=True))
    with pytest.raises(ValueError, match=r"batch_norm.*Received: 'both'"):
        AdversarialTraining(attack=NO_ATTACK, batch_norm="both")
    with pytest.raises(ValueError, match=r"crafting_mode.*Received: 'eval'"):
        AdversarialTraining(attack=NO_ATTACK, crafting_mode="eval")
    with pytest.raises(ValueError, match=r"warmup_steps.*Received: -1"):
        AdversarialTraining(attack=NO_ATTACK, warmup_steps=-1)
    with pytest.raises(ValueError, match=r"examples.*Received: 'clean'"):
        AdversarialTraining(attack=NO_ATTACK, examples="clean")
    for field, value in (("likelihood_weight", -1.0), ("bound", 0.0), ("gradient_through", "mean")):
        fields = {"attack": NO_ATTACK, "likelihood_weight": 0.1, field: value}
        with pytest.raises(ValueError, match=rf"{field}.*Received: {value!r}"):
            ATBLR(**fields)
    with pytest.raises(ValueError, match="likelihood_weight"):
        ATBLR(attack=NO_ATTACK, likelihood_weight=float("nan"))


@pytest.mark.parametrize(
    "method",
    [
        Natural(),
        AdversarialTraining(attack=FGSM(0.1), examples="clean and adversarial", warmup_steps=7),
        ATBLR(
            attack=PGD(0.1, 0.02, 5, norm="l2", loss="margin"),
            likelihood_weight=0.02,
            bound=16.0,
            gradient_through="means",
            batch_norm="separate",
            crafting_mode="training",
        ),
    ],
    ids=["natural", "adversarial training", "atblr"],
)
def test_config(method) -> None:
    assert type(method).from_config(method.get_config()) == method
    config = keras.saving.serialize_keras_object(method)
    assert config["registered_name"] == f"kbl>{type(method).__name__}"
    assert keras.saving.deserialize_keras_object(config) == method


# A user's own method, whole.


@keras.saving.register_keras_serializable(package="tests")
@dataclass(frozen=True, kw_only=True)
class LogitPairing(Method):
    """Adversarial logit pairing (Kannan et al., arXiv:1803.06373)."""

    weight: float = 0.5

    def loss(self, y, clean, adversarial):
        pairing = ops.mean(ops.square(clean - adversarial), axis=-1)
        return cross_entropy(y, adversarial) + self.weight * pairing


def test_a_method_of_ones_own() -> None:
    net = network()
    method = LogitPairing(attack=FGSM(0.1), weight=2.0)
    logits, logits_adv = (numbers(net(x)).astype("float64") for x in (X, crafted(method, net)))
    p = np.exp(logits_adv) / np.exp(logits_adv).sum(axis=1, keepdims=True)
    expected = np.mean(-np.log(p[range(4), Y]) + 2.0 * ((logits - logits_adv) ** 2).mean(axis=1))
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(0.1), method=method)
    history = model.fit(X, Y, batch_size=4, epochs=1, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-5)
    config = keras.saving.serialize_keras_object(method)
    assert keras.saving.deserialize_keras_object(config) == method
