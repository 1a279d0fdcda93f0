"""The only framework code of kbl: three files with the same functions, chosen once by Keras' backend.

``value_and_grad(fn, x)``
    `fn` maps x, a tensor or a list of tensors, to ``(scalar, auxiliary)``; returns ``(auxiliary, gradient)``, neither
    tracked any further. A gradient that does not exist is zero.
``compiled(network, kernel)``
    Compiles ``kernel(forward, *arrays)``, where ``forward(x)`` is the network in inference mode; layers that are random
    even then draw other numbers for each ``forward(x, draw)``. The result is called with the arrays alone (numbers,
    arrays, nested dicts of them) and always sees the network's present weights; equal shapes never compile twice. It
    keeps no reference to the network.
``repeated(network, step)``
    Compiles a step of an attack, ``step(forward, constants, state, i)``, which returns what it changes of the state.
    The result, called with ``(constants, state, i, stop)``, takes it until `stop`, or until all of ``state["done"]``
    (on a GPU of torch only until `stop`), and returns the number reached and the state.
``repeated_inside(forward, identity, step, count, x, constants)``
    Takes ``x = step(forward, x, *constants)`` `count` times inside a training step. Steps of one `identity` on one
    network do the same.
``COMPILES_SHAPES``
    Whether each new shape costs a compilation that few images are not worth.
``with_adversaries(model, step, training, *arguments)``
    Runs Keras' train or test step on the batch that ``model.attacked(data, training)`` returns. While training the
    step runs inside ``model.moved(model.perturbation(batch))``.
``fed(batches)``
    What Keras' ``fit`` is best given of a sequence of batches of equal shapes, `kbl.training.Batches`.
``fit_arguments(given)``
    The arguments of Keras' ``fit`` by name, as it is best given them.
``prepare(network)``
    Lets the network's own layers run as fast as the framework allows. What is saved stays the same, and what is
    computed, up to rounding.
``sign(x)``
    -1, 0 or 1; 0 of what is not a number.
``argmax(x)``
    The place of the greatest along the last axis, int32; of equals the first, as NumPy's. (Keras' takes 0.0 for greater
    than -0.0 on two of the three, and asks for it each time.)
``allow_tf32(allowed)``
    Whether GPUs may multiply float32 matrices in TensorFloat-32. By themselves the frameworks differ in that.
``devices()``
    Names of the devices that the framework sees.
"""

import keras

_NAME = keras.config.backend()

if _NAME == "torch":
    from kbl.backend.torch import (
        COMPILES_SHAPES,
        allow_tf32,
        argmax,
        compiled,
        devices,
        fed,
        fit_arguments,
        prepare,
        repeated,
        repeated_inside,
        sign,
        value_and_grad,
        with_adversaries,
    )
elif _NAME == "jax":
    from kbl.backend.jax import (
        COMPILES_SHAPES,
        allow_tf32,
        argmax,
        compiled,
        devices,
        fed,
        fit_arguments,
        prepare,
        repeated,
        repeated_inside,
        sign,
        value_and_grad,
        with_adversaries,
    )
elif _NAME == "tensorflow":
    from kbl.backend.tensorflow import (
        COMPILES_SHAPES,
        allow_tf32,
        argmax,
        compiled,
        devices,
        fed,
        fit_arguments,
        prepare,
        repeated,
        repeated_inside,
        sign,
        value_and_grad,
        with_adversaries,
    )
else:
    raise ImportError(
        f"kbl runs on Keras' torch, jax and tensorflow backends. Received: KERAS_BACKEND={_NAME}"
    )

__all__ = [
    "COMPILES_SHAPES",
    "allow_tf32",
    "argmax",
    "compiled",
    "devices",
    "fed",
    "fit_arguments",
    "prepare",
    "repeated",
    "repeated_inside",
    "sign",
    "value_and_grad",
    "with_adversaries",
]
