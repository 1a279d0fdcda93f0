"""Ctrl-C ends a training at once."""

import signal
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import keras


def interruptible(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return Keras' `fit` so that what a SIGINT handler raises is not lost in it.

    Keras makes numbers of a batch's losses under a bare ``except`` (`pythonify_logs`), which drops KeyboardInterrupt.
    Where a backend computes while Python goes on, as JAX does, `fit` waits for each step just there, so nearly every
    Ctrl-C would be dropped. It is raised again at the end of that batch, and the model has the weights of its steps.
    One that comes while a step is compiled or handed to JAX, to which Keras has given the old weights by then, ends the
    training as well, but can leave the model in memory without weights; what was saved stays.

    Args:
        fit: takes its callbacks by name; a `keras.callbacks.CallbackList` is handed over as it is.
    """

    @wraps(fit)
    def until_interrupted(*args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        previous: Any = signal.getsignal(signal.SIGINT)
        can_set = threading.current_thread() is threading.main_thread()
        if not (can_set and callable(previous)) or isinstance(callbacks, keras.callbacks.CallbackList):
            return fit(*args, callbacks=callbacks, **kwargs)
        raised: list[BaseException] = []

        def noted(number: int, frame: Any) -> None:
            try:
                previous(number, frame)
            except BaseException as error:
                raised.append(error)
                raise

        def again(*_: Any, **__: Any) -> None:
            if raised:
                raise raised.pop()

        heed = keras.callbacks.LambdaCallback(on_train_batch_end=again, on_train_end=again)
        signal.signal(signal.SIGINT, noted)
        try:
            return fit(*args, callbacks=[heed, *keras.tree.flatten(callbacks or [])], **kwargs)
        finally:
            signal.signal(signal.SIGINT, previous)

    return until_interrupted
