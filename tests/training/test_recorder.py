"""What a run leaves behind at each epoch, and how it goes on from there."""

import csv

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl.attacks import PGD
from kbl.layers import RandomFlipCrop
from kbl.methods import AdversarialTraining
from kbl.training import Batches, Recorder, RobustModel

X = np.random.default_rng(0).uniform(0, 1, (8, 3, 3, 1)).astype("float32")
Y = (np.arange(8) % 2).astype("int32")


def numbers(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.convert_to_tensor(tensor))


def robust(rate=0.25) -> RobustModel:
    net = keras.Sequential([keras.Input((3, 3, 1)), layers.Flatten(), layers.Dense(2)])
    net.set_weights([np.linspace(-1, 1, 18).reshape(9, 2), np.zeros(2)])
    model = RobustModel(net, RandomFlipCrop(crop_padding=1), seed=3)
    model.compile(keras.optimizers.Adam(rate), method=AdversarialTraining(attack=PGD(0.1, 0.1, 1)))
    model.optimizer.build(model.trainable_variables)
    return model


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def begin(folder, monitor="score", steps=4) -> Recorder:
    """Return a recorder of a model that is not trained, to be driven by hand."""
    recorder = Recorder(folder, monitor)
    recorder.set_model(robust())
    recorder.set_params({"steps": steps})
    return recorder


def epoch(recorder: Recorder, number: int, **logs: float) -> None:
    """Let an epoch pass that leaves its number in the network's bias."""
    recorder.on_epoch_begin(number)
    recorder.model.network.layers[-1].bias.assign([number, number])
    recorder.on_epoch_end(number, logs)


def kept(path) -> float:
    return float(keras.saving.load_model(path).get_weights()[1][0])


def test_files_of_an_epoch(tmp_path) -> None:
    recorder = begin(tmp_path)
    epoch(recorder, 0, loss=1.5, score=0.25)
    names = ["best.keras", "checkpoint-1.weights.h5", "history.csv", "model.keras"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    (row,) = rows(tmp_path / "history.csv")
    assert list(row) == ["epoch", "loss", "score", "learning_rate", "seconds"]
    assert (row["epoch"], row["loss"], row["score"], row["learning_rate"]) == ("1", "1.5", "0.25", "0.25")
    assert 0 < float(row["seconds"]) < 60
    epoch(recorder, 1, loss=1.0, score=0.5)
    assert [path.name for path in tmp_path.glob("checkpoint*")] == ["checkpoint-2.weights.h5"]
    recorder.remove_checkpoint()
    assert list(tmp_path.glob("checkpoint*")) == []


def test_best_is_only_replaced_by_better(tmp_path) -> None:
    recorder = begin(tmp_path)
    best = []
    for number, score in enumerate([0.5, 0.25, 0.5, 0.75, 0.0]):
        epoch(recorder, number, score=score)
        assert kept(tmp_path / "model.keras") == number
        best.append(kept(tmp_path / "best.keras"))
    assert best == [0, 0, 0, 3, 3]
    resumed = begin(tmp_path)
    assert resumed.restore(resumed.model) == 5
    epoch(resumed, 5, score=0.6)
    assert kept(tmp_path / "best.keras") == 3
    epoch(resumed, 6, score=0.8)
    assert kept(tmp_path / "best.keras") == 6


def test_without_a_monitor_the_last_is_the_best(tmp_path) -> None:
    recorder = begin(tmp_path, monitor="val_score")
    for number in range(2):
        epoch(recorder, number, loss=0.5)
        assert kept(tmp_path / "best.keras") == number


@pytest.mark.parametrize("broken", ["model.keras", "checkpoint-2.weights.h5"])
def test_what_fails_half_way_leaves_the_epoch_before(tmp_path, monkeypatch, broken) -> None:
    recorder = begin(tmp_path)
    epoch(recorder, 0, score=0.5)
    owner = recorder.model.network if broken == "model.keras" else recorder.model

    def fail(path, *_, **__):
        path.write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setattr(owner, "save" if broken == "model.keras" else "save_weights", fail)
    with pytest.raises(OSError, match="disk"):
        epoch(recorder, 1, score=0.75)
    assert kept(tmp_path / "model.keras") == (0 if broken == "model.keras" else 1)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-1.weights.h5"]
    assert not list(tmp_path.glob(".*"))
    # The history is an epoch ahead of the checkpoint, which is what counts.
    assert len(rows(tmp_path / "history.csv")) == 2
    resumed = begin(tmp_path)
    assert resumed.restore(resumed.model) == 1
    epoch(resumed, 1, score=1.0)
    assert [(row["epoch"], row["score"]) for row in rows(tmp_path / "history.csv")] == [
        ("1", "0.5"),
        ("2", "1.0"),
    ]


def test_nothing_to_restore(tmp_path) -> None:
    recorder = begin(tmp_path)
    assert recorder.restore(recorder.model) == 0
    (tmp_path / "checkpoint-x.weights.h5").write_text("")
    assert recorder.restore(recorder.model) == 0


def test_batches_are_means_of_their_stretch(tmp_path) -> None:
    """Keras' logs are means since the epoch began; a row is the mean of its own two of 100 batches."""
    recorder = begin(tmp_path, steps=100)
    losses = np.random.default_rng(0).uniform(0, 3, (2, 100))
    for number, values in enumerate(losses):
        recorder.on_epoch_begin(number)
        for batch in range(100):
            recorder.on_train_batch_end(batch, {"loss": values[: batch + 1].mean(), "other": 1.0})
        recorder.on_epoch_end(number, {"loss": values.mean()})
    found = rows(tmp_path / "batches.csv")
    assert list(found[0]) == ["epoch", "step", "loss"]
    assert [(row["epoch"], row["step"]) for row in found] == [
        (str(number + 1), str(100 * number + batch)) for number in range(2) for batch in range(2, 101, 2)
    ]
    expected = losses.reshape(100, 2).mean(axis=1)
    np.testing.assert_allclose([float(row["loss"]) for row in found], expected, rtol=1e-9)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of three epochs in one go: its folder and its model."""
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, run(folder, 3)


def run(folder, epochs: int) -> RobustModel:
    model = robust(keras.optimizers.schedules.CosineDecay(0.25, 12))
    recorder = Recorder(folder, "val_adversarial_accuracy")
    done = recorder.restore(model)
    model.fit(
        Batches(X, Y, 2, seed=1),
        initial_epoch=done,
        epochs=epochs,
        validation_data=(X, Y),
        callbacks=[recorder],
        verbose=0,
    )
    return model


def test_history_agrees_with_what_is_saved(unbroken) -> None:
    folder, model = unbroken
    found = rows(folder / "history.csv")
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    for name, value in logs.items():
        np.testing.assert_allclose(float(found[-1][f"val_{name}"]), value, rtol=1e-6)
    saved = keras.saving.load_model(folder / "model.keras")
    for a, b in zip(saved.get_weights(), model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    batches = rows(folder / "batches.csv")
    assert len(batches) == 12
    for row in found:
        mean = np.mean([float(batch["loss"]) for batch in batches if batch["epoch"] == row["epoch"]])
        np.testing.assert_allclose(mean, float(row["loss"]), rtol=1e-5)
    np.testing.assert_allclose(float(found[0]["learning_rate"]), 0.125 * (1 + np.cos(np.pi / 3)), rtol=1e-5)


def test_a_run_that_goes_on_ends_as_the_unbroken_one(unbroken, tmp_path) -> None:
    folder, model = unbroken
    run(tmp_path, 1)
    resumed = run(tmp_path, 3)
    assert int(numbers(resumed.steps_taken)) == 12
    assert int(numbers(resumed.augmentation.counter)) == 12
    assert int(numbers(resumed.optimizer.iterations)) == 12
    for a, b in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("history.csv", "batches.csv"):
        pairs = zip(rows(tmp_path / name), rows(folder / name), strict=True)
        for found, expected in pairs:
            assert {**found, "seconds": 0} == {**expected, "seconds": 0}
