"""Gradients of kbl's own on JAX, beside JAX' own, and where they are used."""

import re

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "jax":
    pytest.skip("they are JAX'", allow_module_level=True)

import jax
import jax.numpy as jnp

from kbl import attacks, methods
from kbl.backend.jax_layers import fast_gradients
from kbl.training import RobustModel

if jax.default_backend() != "cpu":
    pytest.skip("on a GPU the layers keep JAX' own", allow_module_level=True)

# What JAX' own gradients are: a convolution under a kernel (H, W, out, in), and a scattering.
SLOW = re.compile(r"rhs_spec=\(2, 3, 0, 1\)|select_and_scatter")
LEFT = ("groups", "pooling, overlapping", "pooling, same")
LAYERS = {
    "same": (layers.Conv2D(5, 3, padding="same"), (7, 6, 2)),
    "valid": (layers.Conv2D(5, (3, 2)), (7, 6, 2)),
    "even kernel": (layers.Conv2D(5, 4, 2, padding="same"), (7, 6, 2)),
    "strides": (layers.Conv2D(5, 3, (3, 2), padding="same"), (8, 9, 2)),
    "pixels unseen": (layers.Conv2D(5, 2, 4), (11, 10, 2)),
    "strides over the kernel": (layers.Conv2D(5, 1, 2, padding="same"), (7, 6, 2)),
    "dilated": (layers.Conv2D(5, 3, dilation_rate=(2, 1), padding="same"), (7, 6, 2)),
    "dilated, valid": (layers.Conv2D(5, 3, dilation_rate=2), (7, 8, 2)),
    "activation": (layers.Conv2D(5, 3, activation="tanh", use_bias=False), (7, 6, 2)),
    "channels first": (layers.Conv2D(5, 3, 2, padding="same", data_format="channels_first"), (2, 7, 6)),
    "groups": (layers.Conv2D(6, 3, groups=2), (7, 6, 4)),
    "pooling": (layers.MaxPooling2D(), (6, 8, 3)),
    "pooling, remainders": (layers.MaxPooling2D((3, 2)), (8, 7, 3)),
    "pooling, channels first": (layers.MaxPooling2D(2, data_format="channels_first"), (3, 5, 4)),
    "pooling, overlapping": (layers.MaxPooling2D(3, 2), (7, 7, 3)),
    "pooling, same": (layers.MaxPooling2D(2, padding="same"), (7, 7, 3)),
    "pooling, one pixel": (layers.MaxPooling2D(1), (4, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_they_are_those_of_jax(name: str) -> None:
    layer, shape = LAYERS[name]
    layer.build((None, *shape))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=weight.shape).astype("float32") for weight in layer.weights]
    x = rng.integers(-1, 2, (3, *shape)).astype("float32")  # with ties, which pooling must break as JAX does

    def outputs(x: object, weights: object) -> object:
        return layer.stateless_call(weights, [], x)[0]

    def gradients(x: object, weights: object) -> object:
        y, backwards = jax.vjp(outputs, x, weights)
        return y, backwards(jnp.asarray(np.random.default_rng(1).normal(size=y.shape).astype("float32")))

    plain = gradients(x, weights)
    with fast_gradients(keras.Sequential([layer])):
        ours = gradients(x, weights)
        text = str(jax.make_jaxpr(gradients)(x, weights))
    assert keras.tree.flatten(plain[1])[0].any()
    assert plain[0].tolist() == ours[0].tolist()
    for expected, found in zip(keras.tree.flatten(plain[1]), keras.tree.flatten(ours[1]), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert bool(SLOW.search(text)) is (name in LEFT)


def test_a_window_without_numbers_gives_its_slope_to_one_pixel() -> None:
    layer = layers.MaxPooling2D()
    x = np.full((1, 2, 2, 1), np.nan, "float32")
    with fast_gradients(keras.Sequential([layer])):
        y, backwards = jax.vjp(layer, x)
    (slopes,) = backwards(jnp.full_like(y, 3))
    assert np.isnan(y).all()
    assert slopes.ravel().tolist() == [3, 0, 0, 0]


def network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


X, Y = np.random.default_rng(0).random((8, 8, 8, 2)).astype("float32"), np.arange(8) % 3


def assert_fast(text: str) -> None:
    assert re.search(r"(while|scan)\[", text)
    assert "conv_general_dilated" in text
    assert not SLOW.search(text)


def test_attacks_use_them(monkeypatch) -> None:
    traced, real = [], jax.jit

    def jit(function: object, **options: object) -> object:
        compiled = real(function, **options)
        return lambda *given: traced.append(str(jax.make_jaxpr(function)(*given))) or compiled(*given)

    monkeypatch.setattr(jax, "jit", jit)
    attacks.PGD(0.1, 0.02, 3)(network(), X, Y)
    assert_fast("".join(traced))


def test_training_uses_them() -> None:
    model = RobustModel(network())
    pgd = attacks.PGD(0.1, 0.02, 3)
    model.compile("sgd", methods.EnsembleAdversarialTraining(attack=pgd, sources=(network(),)))
    model.fit(X, Y, batch_size=8, epochs=1, verbose=0)
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[variable.value for variable in each] for each in variables]
    assert_fast(str(jax.make_jaxpr(model.train_step)(state, (X, Y))))


def test_layers_are_as_they_were() -> None:
    """So that what JAX' own gradients can do, such as forward mode, goes on working."""
    ours = network()
    before = [dict(vars(layer)) for layer in ours.layers]
    attacks.PGD(0.1, 0.02, 3)(ours, X, Y)

    def stop() -> None:
        with fast_gradients(ours):
            with fast_gradients(ours):
                pass
            assert any("convolution_op" in vars(layer) for layer in ours.layers)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert [set(vars(layer)) for layer in ours.layers] == [set(each) for each in before]
    curvature = jax.hessian(lambda x: ours(x)[:, 0].sum())(jnp.asarray(X[:1]))
    assert curvature.shape == 2 * (1, 8, 8, 2)
