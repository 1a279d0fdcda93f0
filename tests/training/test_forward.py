"""A step's forward pass: what moves its weights, and what its layers add to the loss."""

import keras
import numpy as np
import pytest
from keras import layers, ops, regularizers

from kbl.attacks import PGD
from kbl.methods import AWP, AdversarialTraining, CenterLoss, DefensiveDistillation, Natural
from kbl.training import AveragedWeights, RobustModel

EAGER = keras.config.backend() != "jax"
X = np.random.default_rng(0).uniform(0, 1, (6, 2, 2, 1)).astype("float32")
Y = np.arange(6) % 3
NO_ATTACK = PGD(0.0, 0.1, 1)


def numbers(tensor) -> np.ndarray:
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(tensor)))


def network(**options) -> keras.Model:
    net = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Flatten(),
            layers.Dense(5, activation="tanh", **options),
            layers.Dense(3, activity_regularizer=options.get("activity_regularizer")),
        ]
    )
    rng = np.random.default_rng(1)
    net.set_weights([np.abs(rng.normal(0, 0.7, weight.shape)).astype("float32") for weight in net.weights])
    return net


def compiled(method, net=None, optimizer=None, **options) -> RobustModel:
    model = RobustModel(net or network())
    model.compile(optimizer or keras.optimizers.SGD(0.0), method=method, run_eagerly=EAGER, **options)
    return model


# Moved weights.


def test_the_average_is_that_of_the_weights_themselves() -> None:
    net = network()
    before = net.get_weights()
    optimizer = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.9)
    model = compiled(Natural(), net, optimizer, weight_perturbation=AWP(gamma=0.1))
    model.fit(X, Y, batch_size=3, epochs=2, verbose=0, callbacks=[AveragedWeights()])
    for old, new in zip(before, net.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6)


def test_constraints_hold_for_the_weights_themselves() -> None:
    net = network(kernel_constraint="non_neg")
    optimizer = keras.optimizers.SGD(1.0)
    compiled(Natural(), net, optimizer, weight_perturbation=AWP(gamma=0.3)).fit(X, Y, epochs=3, verbose=0)
    kernel = numbers(net.layers[1].kernel)
    assert kernel.min() == 0, "some entries are stopped at 0"


def test_a_step_that_is_cut_off_leaves_the_weights() -> None:
    class Cut(Natural):
        def learn(self, y, *outputs):
            raise KeyboardInterrupt

    net = network()
    before = net.get_weights()
    model = compiled(Cut(), net, weight_perturbation=AWP(gamma=0.1))
    with pytest.raises(KeyboardInterrupt):
        model.train_on_batch(X, Y)
    for old, new in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


# What layers add to the loss.


def first_loss(method, regularized: bool, **options) -> float:
    added = {"activity_regularizer": regularizers.L2(0.1)} if regularized else {}
    model = compiled(method, network(**added), **options)
    return float(model.train_on_batch(X, Y, return_dict=True)["loss"])


def penalty() -> float:
    net = network()
    hidden = numbers(net.layers[1](X.reshape(6, 4)))
    return 0.1 * float(((hidden**2).sum() + (numbers(net(X)) ** 2).sum()) / 6)


SEPARATE = {"examples": "clean and adversarial", "batch_norm": "separate"}


@pytest.mark.parametrize(
    ("method", "times", "gamma"),
    [
        (Natural(), 1, None),
        (AdversarialTraining(attack=NO_ATTACK), 1, None),
        (AdversarialTraining(attack=NO_ATTACK, examples="clean and adversarial"), 1, None),
        (AdversarialTraining(attack=NO_ATTACK, **SEPARATE), 2, None),
        (AdversarialTraining(attack=NO_ATTACK, **SEPARATE), 2, 1e-7),
        (CenterLoss(), 1, None),
        (DefensiveDistillation(teacher=network(activity_regularizer=regularizers.L2(9.0))), 1, None),
    ],
    ids=["natural", "watched", "joint", "separate", "separate-awp", "center", "distillation"],
)
def test_the_passes_that_are_trained_on_add_to_the_loss(method, times, gamma) -> None:
    """Each of them once: not the pass over clean images that are only watched, nor the teacher's."""
    options = {"weight_perturbation": AWP(gamma=gamma)} if gamma else {}
    added = first_loss(method, True, **options) - first_loss(method, False, **options)
    assert added == pytest.approx(times * penalty(), rel=1e-4)
