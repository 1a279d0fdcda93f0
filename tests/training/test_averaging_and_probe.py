"""Averaged weights, and the probe that names catastrophic overfitting."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl.attacks import FGSM, PGD
from kbl.methods import AdversarialTraining, Natural
from kbl.training import AveragedWeights, Batches, Overfitting, Probe, Recorder, RobustModel, overfitting
from kbl.training.memory import SetAside

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 1, (12, 2, 2, 1)).astype("float32")
Y = (np.arange(12) % 3).astype("int32")


def model_of(momentum: float | None = 0.9, method=None) -> RobustModel:
    net = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(3)])
    rng = np.random.default_rng(1)
    net.set_weights([rng.normal(0, 0.7, weight.shape).astype("float32") for weight in net.weights])
    options = {"use_ema": True, "ema_momentum": momentum} if momentum else {}
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(0.5, **options), method=method or Natural())
    return model


def weights_after(steps: int) -> list[np.ndarray]:
    """The kernel after each of the first steps of plain training."""
    found = []
    for count in range(1, steps + 1):
        model = model_of(None)
        for step in range(count):
            batch = slice(4 * (step % 3), 4 * (step % 3) + 4)
            model.train_on_batch(X[batch], Y[batch])
        found.append(np.array(ops.convert_to_numpy(model.network.layers[-1].kernel)))
    return found


def test_the_average_by_hand(tmp_path) -> None:
    """After three steps the saved kernel is the average of the kernels of each step, begun at the first of them."""
    model = model_of(0.5)
    model.fit(
        X,
        Y,
        batch_size=4,
        epochs=1,
        shuffle=False,
        verbose=0,
        callbacks=[AveragedWeights(), Recorder(tmp_path, "")],
    )
    average, *later = weights_after(3)
    for kernel in later:
        average = 0.5 * average + 0.5 * kernel
    saved = keras.saving.load_model(tmp_path / "model.keras").layers[-1].kernel
    np.testing.assert_allclose(ops.convert_to_numpy(saved), average, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(model.network.layers[-1].kernel), average, rtol=1e-5)


def test_averaging_goes_on_after_a_cut(tmp_path) -> None:
    def callbacks(folder, model):
        folder.mkdir(exist_ok=True)
        recorder = Recorder(folder, "")
        return recorder.restore(model), [AveragedWeights(), recorder]

    whole = model_of()
    _, both = callbacks(tmp_path / "whole", whole)
    whole.fit(Batches(X, Y, 4, 0), epochs=3, verbose=0, callbacks=both)
    first = model_of()
    _, both = callbacks(tmp_path / "cut", first)
    # Cut off by an error as the third epoch begins, when nothing is finalised.
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (2 - epoch))
    with pytest.raises(ZeroDivisionError):
        first.fit(Batches(X, Y, 4, 0), epochs=3, verbose=0, callbacks=[*both, stop])
    second = model_of()
    done, both = callbacks(tmp_path / "cut", second)
    assert done == 2
    second.fit(Batches(X, Y, 4, 0, epoch=2), initial_epoch=2, epochs=3, verbose=0, callbacks=both)
    for a, b in zip(whole.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_last_step_is_gone_on_from_wherever_training_was_left() -> None:
    """Within an epoch the model holds the weights of the last step: the average is that of six steps in one go."""
    whole, cut = model_of(), model_of()
    for model in (whole, cut):
        for start in (0, 4, 8) * 2 if model is whole else (0, 4, 8):
            model.train_on_batch(X[start : start + 4], Y[start : start + 4])
    whole.optimizer.finalize_variable_values(whole.trainable_variables)
    cut.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[AveragedWeights()])
    for a, b in zip(whole.network.get_weights(), cut.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_average_stays_when_training_is_stopped() -> None:
    """By a callback that comes after; and the optimizer's average is that one still."""

    def stop(epoch, logs):
        stopped.stop_training = True

    whole, stopped = model_of(), model_of()
    for model, epochs, callbacks in (
        (whole, 1, []),
        (stopped, 5, [keras.callbacks.LambdaCallback(on_epoch_end=stop)]),
    ):
        callbacks = [AveragedWeights(), *callbacks]
        options = {"shuffle": False, "verbose": 0, "validation_data": (X, Y), "callbacks": callbacks}
        model.fit(X, Y, batch_size=4, epochs=epochs, **options)
    assert int(ops.convert_to_numpy(stopped.optimizer.iterations)) == 3
    for a, b in zip(whole.network.get_weights(), stopped.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    stopped.optimizer.finalize_variable_values(stopped.trainable_variables)
    for a, b in zip(whole.network.get_weights(), stopped.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_set_aside_before_other_steps_is_forgotten() -> None:
    plain, other = model_of(), model_of()
    other.memory.aside = SetAside(0, [np.zeros((4, 3), "float32"), np.zeros(3, "float32")])
    for model in (plain, other):
        model.train_on_batch(X, Y)
        model.fit(X, Y, shuffle=False, verbose=0, callbacks=[AveragedWeights()])
    assert other.memory.aside is None
    for a, b in zip(plain.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_training_goes_on_after_a_cut_between_epochs() -> None:
    """In the same process, from the weights of the last step, as if nothing had been."""
    whole, cut = model_of(), model_of()
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    whole.fit(X, Y, epochs=2, callbacks=[AveragedWeights()], **options)
    fail = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cut.fit(X, Y, epochs=2, callbacks=[AveragedWeights(), fail], **options)
    cut.fit(X, Y, epochs=1, callbacks=[AveragedWeights()], **options)
    for a, b in zip(whole.network.get_weights(), cut.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    cut.fit(X, Y, epochs=1, callbacks=[AveragedWeights()], **options)


def test_an_optimizer_that_does_not_average_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs an optimizer with use_ema=True\. Received: SGD"):
        model_of(None).fit(X, Y, verbose=0, callbacks=[AveragedWeights()])


def test_the_probe_measures_and_is_recorded(tmp_path) -> None:
    model = model_of(None, AdversarialTraining(attack=FGSM(0.1)))
    probe = Probe(PGD(0.1, 0.05, 3), X, Y)
    recorder = Recorder(tmp_path, "probe_accuracy")
    model.fit(Batches(X, Y, 4, 0), epochs=2, verbose=0, callbacks=[probe, recorder])
    x_adv = PGD(0.1, 0.05, 3)(model.network, X, Y, seed=0)
    expected = (ops.convert_to_numpy(model.network(x_adv)).argmax(1) == Y).mean()
    assert float(recorder.history[-1]["probe_accuracy"]) == pytest.approx(expected)
    assert "probe_accuracy" in (tmp_path / "history.csv").read_text().splitlines()[0]


ROWS = [  # under the probe, under the training attack
    ({"probe_accuracy": 0.30, "adversarial_accuracy": 0.40}, False),
    ({"probe_accuracy": 0.40, "adversarial_accuracy": 0.50}, False),
    ({"probe_accuracy": 0.25, "adversarial_accuracy": 0.60}, False),  # down, by less than half
    (
        {"probe_accuracy": 0.10, "adversarial_accuracy": 0.20},
        False,
    ),  # both down: bad training, of another kind
    ({"probe_accuracy": 0.10, "adversarial_accuracy": 0.90}, True),
    ({"probe_accuracy": 0.00, "adversarial_accuracy": 0.99}, False),  # it has its name already
]


@pytest.mark.parametrize("cut", [0, 3])
def test_catastrophic_overfitting_is_named_once(cut: int, monkeypatch) -> None:
    """Whether or not the run was cut off after three epochs."""
    said: list[str] = []
    probe = Probe(
        lambda network, x, y, seed: x, np.zeros((100, 2, 2, 1), "float32"), np.zeros(100), say=said.append
    )
    probe.attack.label = "planted"
    probe.set_model(model_of(None))
    probe.recall([{"epoch": str(epoch), **row} for epoch, (row, _) in enumerate(ROWS[:cut], 1)])
    for epoch, (row, expected) in enumerate(ROWS[cut:], cut):
        logits = np.eye(2)[
            (np.arange(100) >= 100 * row["probe_accuracy"]).astype(int)
        ]  # so many of 100 are right
        monkeypatch.setattr("kbl.training.probe.predict", lambda *_, logits=logits: logits)
        before = len(said)
        probe.on_epoch_end(epoch, {"adversarial_accuracy": row["adversarial_accuracy"]})
        assert (len(said) > before) == expected
    assert probe.found == Overfitting(5, 0.9, 0.1, 0.4)


def test_without_an_attack_in_training_nothing_is_overfitted_to() -> None:
    falling = [{"epoch": n, "probe_accuracy": p, "adversarial_accuracy": ""} for n, p in ((1, 0.8), (2, 0.1))]
    assert overfitting(falling) is None
    assert overfitting({key: row[key] for key in ("epoch", "probe_accuracy")} for row in falling) is None
    assert overfitting({**row, "adversarial_accuracy": "0.5"} for row in falling) == (2, 0.5, 0.1, 0.8)


def test_what_is_said(monkeypatch) -> None:
    said: list[str] = []
    model = model_of(None, AdversarialTraining(attack=FGSM(0.1)))
    probe = Probe(PGD(1.0, 1.0, 3), X, Y, say=said.append)
    probe.set_model(model)
    probe.recall([{"epoch": "1", "probe_accuracy": "0.9", "adversarial_accuracy": "0.5"}])
    logs = {"adversarial_accuracy": 0.8}
    probe.on_epoch_end(1, logs)
    assert logs["probe_accuracy"] < 0.45, "a ball of radius 1 holds every image"
    assert said[0].startswith("Catastrophic overfitting at epoch 2: 80.0% under the training attack, but ")
    assert "under PGD-3 (at best 90.0%)" in said[0]
