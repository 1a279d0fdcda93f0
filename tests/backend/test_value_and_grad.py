"""The one primitive that attacks are made of."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl import backend


def numbers(tensor) -> list:
    return ops.convert_to_numpy(tensor).tolist()


X = np.array([[1, 2], [3, -4]], "float32")


def test_by_hand() -> None:
    auxiliary, gradient = backend.value_and_grad(
        lambda x: (ops.sum(x**3), {"square": x**2, "sums": (ops.sum(x), [x[0]])}), ops.convert_to_tensor(X)
    )
    assert numbers(gradient) == [[3, 12], [27, 48]]
    assert numbers(auxiliary["square"]) == [[1, 4], [9, 16]]
    assert numbers(auxiliary["sums"][0]) == 2
    assert numbers(auxiliary["sums"][1][0]) == [1, 2]


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (ops.sum(ops.stop_gradient(x)), ()),
        lambda x: (ops.convert_to_tensor(5.0), ()),
        lambda x: (ops.sum(ops.sign(x)), ()),
    ],
    ids=["stopped", "constant", "sign"],
)
def test_a_gradient_that_does_not_exist_is_zero(fn) -> None:
    _, gradient = backend.value_and_grad(fn, ops.convert_to_tensor(X))
    assert numbers(gradient) == [[0, 0], [0, 0]]


def test_nothing_is_tracked_any_further() -> None:
    x = ops.convert_to_tensor(X)
    auxiliary, gradient = backend.value_and_grad(lambda x: (ops.sum(x**2), 3 * x), x)
    if keras.backend.backend() == "torch":
        assert not auxiliary.requires_grad
        assert not gradient.requires_grad
        assert not x.requires_grad

    def outer(x):
        _, inner = backend.value_and_grad(lambda z: (ops.sum(z**2), ()), ops.stop_gradient(x))
        return ops.sum(x * ops.stop_gradient(inner)), inner

    inner, gradient = backend.value_and_grad(outer, x)
    assert numbers(inner) == [[2, 4], [6, -8]]
    assert numbers(gradient) == [[2, 4], [6, -8]]


def test_works_where_gradients_are_off() -> None:
    if keras.backend.backend() != "torch":
        pytest.skip("only torch switches gradients off")
    import torch

    with torch.no_grad():
        _, gradient = backend.value_and_grad(lambda x: (ops.sum(x**2), ()), ops.convert_to_tensor(X))
        assert not torch.is_grad_enabled()
    assert numbers(gradient) == [[2, 4], [6, -8]]


def test_errors_reach_the_caller() -> None:
    def broken(x):
        raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        backend.value_and_grad(broken, ops.convert_to_tensor(X))


def tiny() -> keras.Model:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    network.layers[0].set_weights([np.array([[1, 2], [3, 4]]), np.array([0.5, -0.5])])
    return network


def test_a_compiled_kernel_in_a_loop() -> None:
    """Three steps uphill on the sum of the outputs: each adds the kernel's row sums, 3 and 7."""
    network = tiny()

    def kernel(forward, x, steps):
        def step(i, x):
            _, gradient = backend.value_and_grad(lambda z: (ops.sum(forward(z)), ()), x)
            return i + 1, x + gradient

        _, x = ops.while_loop(lambda i, x: i < steps, step, (ops.zeros((), "int32"), x))
        return x, forward(x)

    run = backend.compiled(network, kernel)
    x, outputs = run(X, np.int32(3))
    assert numbers(x) == [[10, 23], [12, 17]]
    assert numbers(outputs) == [[79.5, 111.5], [63.5, 91.5]]
    network.layers[0].set_weights([np.zeros((2, 2)), np.ones(2)])
    x, outputs = run(X, np.int32(3))
    assert numbers(x) == X.tolist()
    assert numbers(outputs) == [[1, 1], [1, 1]]


def test_a_failed_kernel_leaves_the_network_as_it_was() -> None:
    network = tiny()

    def kernel(forward, x):
        raise RuntimeError("from inside")

    with pytest.raises(RuntimeError, match="from inside"):
        backend.compiled(network, kernel)(X)
    assert [v.trainable for v in network.variables] == [True, True]
    if keras.backend.backend() == "torch":
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_devices() -> None:
    names = backend.devices()
    assert names
    assert all(isinstance(name, str) for name in names)
