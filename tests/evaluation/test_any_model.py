"""Models that plain Keras code made, in every shape they come in, judged like kbl's own."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import kbl
from kbl.attacks import PGD, AttackWarning, predict
from kbl.certification import certify
from kbl.evaluation import as_network

RNG = np.random.default_rng(0)
X = RNG.random((16, 4, 4, 2)).astype("float32")
ATTACK = PGD(0.05, 0.02, 5)


def body(*last, shape=(4, 4, 2)) -> list:
    return [keras.Input(shape), layers.Flatten(), layers.Dense(8, activation="relu"), *last]


def filled(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def logits_model() -> keras.Model:
    return filled(keras.Sequential(body(layers.Dense(5))))


EXPECTED = predict(logits_model(), X)


def functional() -> keras.Model:
    sequential = body(layers.Dense(5, activation="softmax"))
    inputs = outputs = sequential[0]
    for layer in sequential[1:]:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def around(inner: keras.Model) -> keras.Model:
    """A functional model whose output is that of a nested one."""
    inputs = keras.Input((4, 4, 2))
    return keras.Model(inputs, inner(layers.Rescaling(1.0)(inputs)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential(body(layers.Dense(5, activation="softmax"))),
        lambda: keras.Sequential(body(layers.Dense(5), layers.Softmax())),
        lambda: keras.Sequential(body(layers.Dense(5), layers.Activation("softmax"))),
        functional,
        lambda: keras.Sequential([keras.Input((4, 4, 2)), functional()]),
        lambda: around(functional()),
        lambda: around(around(keras.Sequential(body(layers.Dense(5), layers.Softmax())))),
        lambda: around(keras.Sequential([keras.Input((4, 4, 2)), functional()])),
    ],
    ids=[
        *("dense", "softmax layer", "activation layer", "functional", "nested in a sequential"),
        *("nested in a functional", "nested twice", "nested in both"),
    ],
)
def test_a_softmax_at_the_end_is_taken_off(make) -> None:
    model = filled(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error", AttackWarning)
        network = as_network(model, X)
    np.testing.assert_allclose(predict(network, X), EXPECTED, rtol=1e-5, atol=1e-5)
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    found = kbl.evaluate(network, X, EXPECTED.argmax(axis=1), [ATTACK], diagnostics=False)
    assert found.warnings == []
    assert (
        found.robust
        == kbl.evaluate(logits_model(), X, EXPECTED.argmax(axis=1), [ATTACK], diagnostics=False).robust
    )
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(weight))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model that only its call describes."""

    def __init__(self, softmax: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.flatten, self.dense, self.softmax = layers.Flatten(), layers.Dense(5), softmax

    def call(self, x):
        logits = self.dense(self.flatten(x))
        return ops.softmax(logits) if self.softmax else logits


def test_a_subclassed_model_is_taken_as_it_is() -> None:
    model = Subclassed()
    model(X)
    network = as_network(model, X)
    assert network is model
    y = predict(model, X).argmax(axis=1)
    assert kbl.evaluate(network, X, y, [ATTACK], diagnostics=False).clean == 1.0


def test_a_softmax_that_cannot_be_taken_off_is_undone_with_a_warning() -> None:
    model = Subclassed(softmax=True)
    model(X)
    filled(model)
    with pytest.warns(AttackWarning, match="their logarithm stands in"):
        network = as_network(model, X)
    shares = predict(model, X)
    logits = predict(network, X)
    np.testing.assert_allclose(np.exp(logits), shares, rtol=1e-4, atol=1e-6)
    found = kbl.evaluate(network, X, shares.argmax(axis=1), [ATTACK], diagnostics=False)
    assert "probabilities" not in {warning["name"] for warning in found.warnings}


def test_pixels_up_to_255() -> None:
    """A model with its own preprocessing inside, saved and loaded; ε stays in units of [0, 1]."""
    model = filled(
        keras.Sequential([keras.Input((4, 4, 2)), layers.Rescaling(1 / 255), *body(layers.Dense(5))[1:]])
    )
    network = as_network(model, X, scale=255)
    np.testing.assert_allclose(predict(network, X), EXPECTED, rtol=1e-4, atol=1e-4)
    x_adv = ATTACK(network, X, EXPECTED.argmax(axis=1))
    assert np.abs(x_adv - X).max() <= 0.05


def test_channels_first() -> None:
    """The same weights, their rows in the order of (C, H, W)."""
    model = keras.Sequential(body(layers.Dense(5), shape=(2, 4, 4)))
    kernel, *others = logits_model().get_weights()
    kernel = kernel.reshape(4, 4, 2, 8).transpose(2, 0, 1, 3).reshape(32, 8)
    model.set_weights([kernel, *others])
    network = as_network(model, X)
    np.testing.assert_allclose(predict(network, X), EXPECTED, rtol=1e-5, atol=1e-5)


def test_what_was_put_around_a_model_can_be_certified() -> None:
    """A softmax taken off, layers of another graph, other pixels: still layers one after the other."""
    plain = logits_model()
    expected = certify(plain, X, EXPECTED.argmax(axis=1), 1e-3)
    assert expected.any()
    softmax = filled(keras.Sequential(body(layers.Dense(5, activation="softmax"))))
    scaled = logits_model()
    scaled.set_weights([array / 255 if i == 0 else array for i, array in enumerate(scaled.get_weights())])
    for model, scale in ((softmax, 1.0), (filled(functional()), 1.0), (scaled, 255.0)):
        network = as_network(model, X, scale=scale)
        np.testing.assert_array_equal(certify(network, X, EXPECTED.argmax(axis=1), 1e-3), expected)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"takes images of \(8, 8, 3\). Received: images of shape \(4, 4, 2\)"
    ):
        as_network(keras.Sequential(body(layers.Dense(5), shape=(8, 8, 3))), X)


def test_a_gaussian_head_is_found_behind_what_was_put_before_it() -> None:
    model = filled(keras.Sequential(body(kbl.layers.GMMHead(5))))
    assert kbl.layers.has_gmm_head(as_network(model, X, scale=2.0))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="wraps a PyTorch module")
def test_a_torch_module() -> None:
    """Channels first, with batch normalization and dropout; its mode and weights are as before."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )
    wrapped = layers.TorchModuleWrapper(module)
    model = keras.Sequential([keras.Input((2, 4, 4)), wrapped])
    network = as_network(model, X)
    module.eval()
    with torch.no_grad():
        direct = module(torch.tensor(X).permute(0, 3, 1, 2)).numpy()
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    np.testing.assert_allclose(predict(network, X), direct, rtol=1e-5, atol=1e-5)
    found = kbl.evaluate(network, X, direct.argmax(axis=1), [PGD(0.3, 0.1, 5)])
    assert found.clean == 1.0
    assert found.robust < 1.0
    assert "random_network" not in {warning["name"] for warning in found.warnings}
    assert all(part.training for part in module.modules())
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, before[key])
