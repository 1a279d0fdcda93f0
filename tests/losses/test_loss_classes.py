"""The losses as Keras' `Loss` classes: reduced, weighted, configured, compiled, saved."""

import keras
import numpy as np
import pytest
from keras import ops

from kbl import losses
from kbl.layers import GMMHead

Y = np.array([2, 0, 1])
LOGITS = np.array([[-1, 2, 0.5], [-3, -1, -2], [4, 4.5, -1]], "float32")
CASES = {
    "CrossEntropy": (losses.CrossEntropy, {}, losses.cross_entropy),
    "LikelihoodRegularization": (
        losses.LikelihoodRegularization,
        {},
        losses.likelihood_regularization,
    ),
    "ATBLRClean": (
        losses.ATBLRClean,
        {"likelihood_weight": 0.3},
        lambda y, z: losses.atblr_clean(y, z, 0.3),
    ),
    "ATBLRAdversarial": (
        losses.ATBLRAdversarial,
        {"likelihood_weight": 0.3, "bound": 2.0},
        lambda y, z: losses.atblr_adversarial(y, z, 0.3, 2.0),
    ),
    "Margin": (losses.Margin, {"kappa": 0.25}, lambda y, z: losses.margin(y, z, 0.25)),
    "DLR": (losses.DLR, {}, losses.dlr),
}


@pytest.mark.parametrize("name", CASES)
def test_reductions_and_weights(name: str) -> None:
    loss_class, arguments, function = CASES[name]
    each = ops.convert_to_numpy(function(Y, LOGITS))

    def reduced(reduction, weights=None):
        return ops.convert_to_numpy(loss_class(**arguments, reduction=reduction)(Y, LOGITS, weights))

    np.testing.assert_allclose(reduced(None), each, rtol=1e-6)
    np.testing.assert_allclose(reduced("sum"), each.sum(), rtol=1e-6)
    weights = np.array([1, 0, 2.5], "float32")
    np.testing.assert_allclose(reduced(None, weights), each * weights, rtol=1e-6)
    default = loss_class(**arguments)
    np.testing.assert_allclose(default(Y, LOGITS), each.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        default(Y, LOGITS, weights), (each[0] + 2.5 * each[2]) / 3, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(default(np.eye(3)[Y], LOGITS), each.mean(), rtol=1e-6)
    np.testing.assert_allclose(default(Y[:, None], LOGITS), each.mean(), rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_configuration_round_trip(name: str) -> None:
    loss_class, arguments, _ = CASES[name]
    loss = loss_class(**arguments, reduction="sum", name="mine")
    config = loss.get_config()
    assert {key: config[key] for key in arguments} == arguments
    for restored in (
        loss_class.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss)),
    ):
        assert type(restored) is loss_class
        assert restored.get_config() == config
        assert restored.name == "mine"
        assert restored.reduction == "sum"
        assert float(restored(Y, LOGITS)) == float(loss(Y, LOGITS))
    assert loss_class(**arguments).name == {
        "CrossEntropy": "cross_entropy",
        "LikelihoodRegularization": "likelihood_regularization",
        "ATBLRClean": "atblr_clean",
        "ATBLRAdversarial": "atblr_adversarial",
        "Margin": "margin",
        "DLR": "dlr",
    }.get(name)


@pytest.mark.parametrize("form", ["integers", "column", "one-hot"])
def test_fit_a_gaussian_mixture_save_and_load(form: str, tmp_path) -> None:
    """Three separable clouds: every image right, the regularization small, the means on the features."""
    rng = np.random.default_rng(0)
    indices = np.arange(90) % 3
    x = (np.array([[4, 0], [0, 4], [-4, -4]])[indices] + rng.normal(size=(90, 2)) * 0.3).astype("float32")
    y = {"integers": indices, "column": indices[:, None], "one-hot": np.eye(3)[indices]}[form]
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), GMMHead(3)])
    network.layers[0].kernel.assign([[1, 0.5], [-0.5, 1]])
    network.layers[1].means.assign([[0.1, 0], [0, 0.1], [-0.1, -0.1]])
    accuracy = "categorical_accuracy" if form == "one-hot" else "sparse_categorical_accuracy"
    network.compile(keras.optimizers.Adam(0.1), losses.ATBLRClean(0.1), metrics=[accuracy])
    before = network.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert before > 2  # ‖h - μ_y‖² is about 20
    network.fit(x, y, batch_size=30, epochs=20, verbose=0, shuffle=False)
    after = network.evaluate(x, y, verbose=0, return_dict=True)
    assert after[accuracy] == 1
    assert after["loss"] < 0.05
    network.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    assert isinstance(restored.loss, losses.ATBLRClean)
    assert restored.loss.likelihood_weight == 0.1
    assert restored.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(
        after["loss"], rel=1e-5
    )


def test_an_infinite_kappa_is_saved(tmp_path) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    network.compile("sgd", losses.Margin())
    network.save(tmp_path / "network.keras")
    assert keras.saving.load_model(tmp_path / "network.keras").loss.kappa == float("inf")
