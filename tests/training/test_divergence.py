"""Training that runs away stops, says why, and leaves the last good epoch."""

import csv
import math

import keras
import numpy as np
import pytest
from keras import layers

from kbl import DivergenceError
from kbl.attacks import FGSM
from kbl.layers import GMMHead
from kbl.methods import ATBLR, LGM, AdversarialTraining, Natural
from kbl.training import Recorder, RobustModel, StopOnDivergence

X = np.random.default_rng(0).uniform(0, 1, (12, 9)).astype("float32")
Y = (np.arange(12) % 3).astype("int32")


def robust(method, rate=0.1, head: str = "gmm") -> RobustModel:
    last = GMMHead(3) if head == "gmm" else layers.Dense(3)
    net = keras.Sequential([keras.Input((9,)), layers.Dense(6), last])
    rng = np.random.default_rng(1)
    net.set_weights([rng.normal(0, 0.5, weight.shape).astype("float32") for weight in net.weights])
    model = RobustModel(net)
    model.compile(keras.optimizers.SGD(rate), method=method, run_eagerly=keras.config.backend() != "jax")
    return model


def fit(model: RobustModel, epochs: int, *callbacks) -> dict[str, list[float]]:
    """Three batches an epoch, always in the same order."""
    return model.fit(
        X, Y, batch_size=4, epochs=epochs, shuffle=False, callbacks=list(callbacks), verbose=0
    ).history


def test_exact_atblr_of_a_large_weight_runs_away() -> None:
    model = robust(ATBLR(attack=FGSM(0.3), likelihood_weight=5.0))
    with pytest.raises(DivergenceError) as caught:
        fit(model, 30)
    text = str(caught.value)
    for words in ("_lkd, the mean of ‖h - μ_y‖², is", "likelihood term of Eq. 8", "no lower bound"):
        assert words in text
    for remedy in (
        "bound = 16",
        'gradient_through = "means"',
        "lower likelihood_weight",
        "batch normalization",
    ):
        assert remedy in text
    assert "docs/divergence.md" in text
    weights = np.concatenate([weight.ravel() for weight in model.network.get_weights()])
    assert np.isfinite(weights).all(), "it stops before the numbers overflow"


def test_the_means_only_form_does_not() -> None:
    model = robust(ATBLR(attack=FGSM(0.3), likelihood_weight=0.02, gradient_through="means"))
    history = fit(model, 5)
    assert len(history["loss"]) == 5
    assert max(history["adversarial_lkd"]) < 50


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (AdversarialTraining(attack=FGSM(0.1)), "gmm"),
        (AdversarialTraining(attack=FGSM(0.1)), "dense"),
        (LGM(), "gmm"),
    ],
    ids=["gmm", "dense", "lgm"],
)
def test_a_loss_that_is_no_number(method, head) -> None:
    """Without ATBLR's likelihood term in the loss its remedies would mislead, whatever the head."""
    model = robust(method, rate=1e30, head=head)
    pattern = r"ran away at epoch 1: \w+ is (nan|inf)\. Remedies: lower the learning rate"
    with pytest.raises(DivergenceError, match=pattern):
        fit(model, 3)


def test_weights_that_are_no_numbers() -> None:
    model = robust(Natural(), head="dense")
    model.network.layers[0].kernel.assign(np.full((9, 6), np.nan))
    with pytest.raises(DivergenceError, match=r"ran away at epoch 1, batch 1: loss is nan"):
        fit(model, 1)


@pytest.mark.parametrize("method", [Natural(), LGM()], ids=["natural", "lgm"])
def test_a_long_way_to_the_means_alone_is_no_divergence(method) -> None:
    """A network may begin with features of any length, and LGM's likelihood term only draws them in."""
    model = robust(method, rate=0.0)
    model.network.layers[0].kernel.assign(np.full((9, 6), 1e4))
    assert fit(model, 1)["clean_lkd"][0] > 1e6


class Blowing(keras.callbacks.Callback):
    """Spoil the weights at a batch of an epoch, as a step that is too long does."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.when = (epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            self.model.network.layers[0].bias.assign(np.full(6, np.nan))


def test_the_last_good_epoch_is_kept(tmp_path) -> None:
    """The third batch of the second epoch is not looked at by itself: the epoch's end is, before anything is saved."""
    model = robust(Natural(), head="dense")
    weights = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.network.get_weights())
    )
    with pytest.raises(DivergenceError, match=r"ran away at epoch 2: loss is nan"):
        fit(model, 4, keep, Recorder(tmp_path, "clean_accuracy"), Blowing(1, 2))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1"]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1.weights.h5"]
    for name in ("model.keras", "best.keras"):
        kept = keras.saving.load_model(tmp_path / name).get_weights()
        assert len(weights) == 1
        for a, b in zip(kept, weights[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_validation_shows_what_the_last_step_broke(tmp_path) -> None:
    model = robust(Natural(), head="dense")
    model.optimizer.learning_rate = 1e30
    with pytest.raises(DivergenceError, match=r"ran away at epoch 1: val_loss is nan"):
        model.fit(
            X[:4], Y[:4], validation_data=(X, Y), callbacks=[Recorder(tmp_path, "loss")], epochs=1, verbose=0
        )
    assert list(tmp_path.iterdir()) == []


def looked_at(steps: list[int], every: int) -> list[int]:
    """Return the batches whose loss made the guard cry out."""
    guard = StopOnDivergence(every=every)
    guard.set_model(robust(Natural()))
    guard.on_epoch_begin(0)
    found = []
    for step in steps:
        try:
            guard.on_train_batch_end(step, {"loss": math.nan})
        except DivergenceError:
            found.append(step)
    return found


def test_how_often_it_looks() -> None:
    assert looked_at(list(range(25)), 10) == [0, 10, 20]
    # Keras calls back at every fourth batch alone with steps_per_execution=4.
    assert looked_at(list(range(3, 40, 4)), 10) == [3, 15, 27, 39]
