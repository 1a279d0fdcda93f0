"""Batches: their order, and what a network sees of it in fit."""

import hashlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from kbl import backend
from kbl.training import Batches, RobustModel


def numpy(tensor) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def rows(batches: Batches) -> np.ndarray:
    return np.concatenate([batches[i][1] for i in range(len(batches))])


def numbered(count: int = 10, batch_size: int = 3, seed: int | None = 5, epoch: int = 0) -> Batches:
    y = np.arange(count)
    return Batches(y[:, None] / 100.0, y, batch_size, seed, epoch)


def test_order_is_numpys_for_seed_and_epoch() -> None:
    batches = numbered()
    for epoch in range(3):
        expected = np.random.Generator(np.random.PCG64([5, epoch])).permutation(10)[:9]
        np.testing.assert_array_equal(rows(batches), expected)
        np.testing.assert_array_equal(rows(numbered(epoch=epoch)), expected)
        batches.on_epoch_end()
    assert (rows(numbered(seed=6)) != rows(numbered(seed=5))).any()


def test_order_is_the_same_everywhere() -> None:
    """One number for all backends, platforms and versions of NumPy."""
    order = rows(numbered(1000, 100, seed=0, epoch=7))
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "a2bdd9c4b6bc99f6"


def test_fit_is_fed_the_same_batches_without_a_wait() -> None:
    """TensorFlow's tuning of a pipeline would hold up the end of each epoch."""
    batches = numbered()
    fed = backend.fed(batches)
    if keras.config.backend() != "tensorflow":
        assert fed is batches
        return
    assert fed.options().autotune.enabled is False
    assert len(fed) == 3
    for epoch in range(2):
        batches.start(epoch)
        x, y = zip(*((numpy(x), numpy(y)) for x, y in fed), strict=True)
        np.testing.assert_array_equal(np.concatenate(y), rows(batches))
        assert x[0].dtype == "float32"
        np.testing.assert_allclose(np.concatenate(x)[:, 0], rows(batches) / 100.0, rtol=1e-6)


def test_without_a_seed_all_rows_come_as_they_stand() -> None:
    batches = numbered(seed=None)
    for _ in range(2):
        assert [len(batches[i][1]) for i in range(len(batches))] == [3, 3, 3, 1]
        np.testing.assert_array_equal(rows(batches), np.arange(10))
        batches.on_epoch_end()
    given = np.concatenate([numpy(y) for _, y in backend.fed(batches)])
    np.testing.assert_array_equal(given, np.arange(10))


def test_fit_validates_on_batches_as_on_arrays() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((10, 2)).astype("float32"), rng.integers(0, 3, 10).astype("int32")
    found = []
    for validation in ((x, y), Batches(x, y, 3, seed=None)):
        keras.utils.set_random_seed(0)
        model = RobustModel(keras.Sequential([keras.Input((2,)), layers.Dense(3)]))
        model.compile(keras.optimizers.SGD(0.1))
        history = model.fit(
            Batches(x, y, 5, seed=1), epochs=3, validation_data=validation, validation_batch_size=3, verbose=0
        )
        found.append(history.history)
    assert list(found[0]) == list(found[1])
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-5, err_msg=name)


def test_images_and_labels_stay_together() -> None:
    x, y = numbered()[1]
    np.testing.assert_array_equal(x[:, 0], y / 100.0)
    assert x.shape == (3, 1)


def test_what_does_not_fill_a_batch_waits() -> None:
    batches = numbered()
    assert len(batches) == 3
    left = set()
    for _ in range(20):
        assert len(set(rows(batches))) == 9
        left |= set(range(10)) - set(rows(batches))
        batches.on_epoch_end()
    assert len(left) > 5, "another image waits each time"


def test_fewer_images_than_a_batch() -> None:
    batches = numbered(count=2)
    assert len(batches) == 1
    assert sorted(rows(batches)) == [0, 1]


@pytest.mark.parametrize("first", [0, 2])
def test_fit_takes_the_batches_in_order(first: int) -> None:
    """With rate 0 a batch's loss tells which images it held: none is skipped, repeated or taken early."""
    network = keras.Sequential([keras.Input((1,)), layers.Dense(2, use_bias=False)])
    network.layers[-1].kernel.assign([[0.0, 40.0]])
    model = RobustModel(network)
    model.compile(keras.optimizers.SGD(0.0))
    y = np.arange(10)
    x, labels = (y[:, None] / 10.0).astype("float32"), np.zeros(10, "int32")

    seen = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["loss"]) * (batch + 1))

    batches = Batches(x, labels, 3, 5, epoch=first)
    model.fit(batches, initial_epoch=first, epochs=first + 2, callbacks=[Losses()], verbose=0)
    expected = []
    for epoch in (first, first + 1):
        order = np.random.Generator(np.random.PCG64([5, epoch])).permutation(10)[:9].reshape(3, 3)
        expected += list(np.log1p(np.exp(4.0 * order)).mean(axis=1).cumsum())
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
