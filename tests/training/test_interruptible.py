"""Ctrl-C during `fit`."""

import contextlib
import os
import signal
import threading

import keras
import numpy as np
import pytest

import kbl
from kbl.networks import digits_convnet

X = np.random.default_rng(0).random((8, 8, 8, 1)).astype("float32")
Y = np.arange(8) % 10


class Careless(keras.callbacks.Callback):
    """Is interrupted in a given epoch or batch, and drops that as Keras does where it waits for a step."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.batches = 0
        setattr(self, hook, self.interrupted)

    def interrupted(self, *_, **__) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_begin(self, batch, logs=None) -> None:
        self.batches += 1


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler, whatever the tests were started with; it is to be there again afterwards."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, previous)


def fit(*callbacks) -> None:
    model = kbl.RobustModel(digits_convnet("dense"))
    model.compile("sgd")
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("hook", "batches"), [("on_epoch_begin", 1), ("on_train_batch_end", 2), ("on_epoch_end", 4)]
)
def test_an_interrupt_that_was_dropped_is_raised_again(hook, batches) -> None:
    careless = Careless(hook)
    with pytest.raises(KeyboardInterrupt):
        fit(careless)
    assert careless.batches == batches


def test_the_model_is_whole_after_it_and_trains_on() -> None:
    model = kbl.RobustModel(digits_convnet("dense"))
    model.compile("sgd")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Careless("on_epoch_begin")])
    assert int(model.steps_taken) == 1
    assert np.isfinite(keras.ops.convert_to_numpy(model.network(X))).all()
    model.fit(X, Y, batch_size=2, verbose=0)
    assert int(model.steps_taken) == 5


def test_what_another_handler_lets_pass_goes_on() -> None:
    caught = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    careless = Careless("on_epoch_begin")
    fit(careless)
    assert (caught, careless.batches) == ([signal.SIGINT], 4)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_outside_the_main_thread_nothing_is_set() -> None:
    careless = Careless("set_nothing")
    thread = threading.Thread(target=fit, args=(careless,))
    thread.start()
    thread.join()
    assert careless.batches == 4
